// The API's options as a form, made from its own description (/openapi.json).

import { say, sayOr } from "./words.js";

// What the page itself sets.
const OWN = new Set(["file", "fileType", "logId", "visualize", "outputFormats"]);

/** The schema of a /layout-parsing request in an OpenAPI document; null where there is none. */
export function schemaIn(openapi) {
  const content = openapi?.paths?.["/layout-parsing"]?.post?.requestBody?.content;
  const schema = resolved(content?.["application/json"]?.schema, openapi);
  return schema?.properties ? { schema, openapi } : null;
}

function resolved(schema, openapi) {
  const name = /^#\/components\/schemas\/([\w.-]+)$/.exec(schema?.$ref ?? "")?.[1];
  return name && Object.hasOwn(openapi.components?.schemas ?? {}, name) ? openapi.components.schemas[name] : schema;
}

/** Fill `form` with a control for each option. */
export function build(form, { schema, openapi }) {
  form.replaceChildren();
  for (const [name, property] of Object.entries(schema.properties)) {
    if (OWN.has(name)) continue;
    const kinds = (property.anyOf ?? [property]).map((one) => resolved(one, openapi)).filter((one) => one.type !== "null");
    const control = controlOf(kinds);
    control.id = `option-${name}`;
    control.name = name;
    const label = document.createElement("label");
    label.htmlFor = control.id;
    const code = document.createElement("code");
    code.textContent = name;
    label.append(code, " ", sayOr(`option.${name}`, property.description ?? ""));
    const row = document.createElement("div");
    row.append(label, control);
    form.append(row);
  }
}

function controlOf(kinds) {
  const [kind] = kinds;
  if (kinds.length === 1 && (kind.type === "boolean" || kind.enum)) return choice(kind.enum ?? [true, false]);
  const input = document.createElement("input");
  input.autocomplete = "off";
  input.placeholder = say("default");
  if (kinds.length === 1 && (kind.type === "integer" || kind.type === "number")) {
    input.type = "number";
    input.step = kind.type === "integer" ? "1" : "any";
    if (kind.minimum !== undefined) input.min = kind.minimum;
    if (kind.maximum !== undefined) input.max = kind.maximum;
    input.dataset.kind = "number";
  } else {
    input.type = "text";
    input.dataset.kind = kinds.length === 1 && kind.type === "array" ? "list" : "json";
    input.placeholder = say(input.dataset.kind === "list" ? "defaultList" : "defaultJson");
  }
  return input;
}

function choice(values) {
  const select = document.createElement("select");
  select.append(new Option(say("default"), ""));
  for (const value of values) {
    const shown = typeof value === "boolean" ? say(value ? "yes" : "no") : String(value);
    select.append(new Option(shown, JSON.stringify(value)));
  }
  select.dataset.kind = "json";
  return select;
}

/** What the user has set, as fields of a request; what he has not is the service's own default. */
export function read(form) {
  const fields = {};
  for (const control of form.elements) {
    const text = control.value.trim();
    if (!text || !control.name) continue;
    fields[control.name] = valueOf(control.dataset.kind, text);
  }
  return fields;
}

function valueOf(kind, text) {
  if (kind === "number") return Number(text);
  if (kind === "list") return text.split(/[,，]/).map((one) => one.trim()).filter(Boolean);
  try {
    return JSON.parse(text);
  } catch {
    return text; // a word, such as `large`; the service says when it does not take it
  }
}
