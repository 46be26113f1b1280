// Markdown of a page to elements, part by part. What comes from a document is hostile until it has gone through here:
// DOMPurify leaves the tags of text and tables, no attribute that loads, runs or styles; KaTeX runs without trust.

import DOMPurify from "./vendor/dompurify/purify.es.mjs";
import { Marked } from "./vendor/marked/marked.esm.js";
import { say } from "./words.js";

const TAGS =
  "h1 h2 h3 h4 h5 h6 p div span br hr ul ol li blockquote pre code em strong b i u s del ins sub sup " +
  "table caption thead tbody tfoot tr th td colgroup col img a";
const ATTRIBUTES = "href title alt align colspan rowspan width start data-picture data-formula";
const ALLOWED = {
  ALLOWED_TAGS: TAGS.split(" "),
  ALLOWED_ATTR: ATTRIBUTES.split(" "),
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  ADD_URI_SAFE_ATTR: ["data-picture", "data-formula"],
  RETURN_DOM_FRAGMENT: true,
};
// KaTeX is asked for no more than so many macros and so large a rule (em): a formula may not stall or fill the page.
const FORMULA = { trust: false, strict: "ignore", throwOnError: true, maxExpand: 500, maxSize: 20 };
const LONGEST_FORMULA = 20_000; // characters

// PaddleX writes ` $ x $ ` and ` $$ x $$ `. A dollar sign is no formula's where only one of both has a space inside,
// or a digit follows: `$5 and $10`.
const DISPLAY = /^ *\$\$((?:\\[^]|[^\\$])+?)\$\$/;
const INLINE = /^\$(?!\$)(?:( )((?:\\[^]|[^\\$\n])+?) |((?! )(?:\\[^]|[^\\$\n])*?(?:\\[^]|[^\\$\s])))\$(?![\d$])/;
const ANYWHERE = /\$\$(?:\\[^]|[^\\$])+?\$\$|\$(?:\\[^]|[^\\$\n])+?\$(?![\d$])/g;

const purify = DOMPurify(window);
purify.addHook("beforeSanitizeAttributes", (node) => {
  if (!node.hasAttribute) return;
  // PaddleX centres by a style, which does not get through.
  if (/text-align:\s*center/i.test(node.getAttribute("data-style") ?? "")) node.setAttribute("align", "center");
  node.removeAttribute("data-picture");
  // A picture is one of the reply's, by name, or none: `src` itself does not get through, so that no address is ever asked.
  if (node.nodeName === "IMG") node.setAttribute("data-picture", node.getAttribute("src") ?? "");
});
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A" || !node.hasAttribute("href")) return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer");
});

const escaped = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
const formula = (tex, kind) => `<code data-formula="${kind}">${escaped(tex)}</code>`;
const marked = new Marked({
  gfm: true,
  extensions: [
    {
      name: "display",
      level: "block",
      start: (source) => source.match(/(?:^|\n) *\$\$/)?.index,
      tokenizer: (source) => token("display", DISPLAY.exec(source)),
      renderer: ({ tex }) => `<p>${formula(tex, "display")}</p>`,
    },
    {
      name: "displayInText",
      level: "inline",
      start: (source) => source.indexOf("$$"),
      tokenizer: (source) => token("displayInText", source.startsWith("$$") ? DISPLAY.exec(source) : null),
      renderer: ({ tex }) => formula(tex, "display"),
    },
    {
      name: "inline",
      level: "inline",
      start: (source) => source.indexOf("$"),
      tokenizer: (source) => token("inline", INLINE.exec(source)),
      renderer: ({ tex }) => formula(tex, "inline"),
    },
  ],
});

// The policy of the page reports each style attribute that is parsed, although none is applied: they are no longer
// called so before. Not what protects: DOMPurify and the policy do.
const unstyled = (html) => html.replace(/<[a-z][^<>]*>/gi, (tag) => tag.replace(/([\s"'/])style\s*=/gi, "$1data-style="));

function token(type, match) {
  return match ? { type, raw: match[0], tex: (match[1]?.trim() && match[1]) || match[2] || match[3] } : undefined;
}

/**
 * The parts of a page's Markdown (paragraphs, titles, tables, …): source and element of each, in order.
 * pictures: name → URL of a blob. Formulas are drawn later, by `drawFormulas`.
 */
export function render(text, pictures) {
  const tokens = marked.lexer(text);
  const parts = [];
  for (const one of tokens) {
    if (one.type === "space") continue;
    const element = document.createElement("div");
    element.className = "part";
    const html = marked.parser(Object.assign([one], { links: tokens.links }));
    element.append(purify.sanitize(unstyled(html), ALLOWED));
    if (one.type === "html" || one.type === "table" || one.type === "paragraph") findFormulas(element);
    for (const image of element.querySelectorAll("img")) place(image, pictures);
    if (element.textContent.trim() || element.querySelector("img, hr, table")) parts.push({ source: one.raw, element });
  }
  return parts;
}

function place(image, pictures) {
  const name = image.dataset.picture;
  image.removeAttribute("data-picture");
  if (pictures.has(name)) {
    image.src = pictures.get(name);
    if (!/^\d{1,3}%$/.test(image.getAttribute("width") ?? "")) image.removeAttribute("width");
    image.alt ||= say("picture");
    return;
  }
  const missing = document.createElement("span");
  missing.className = "missing";
  missing.textContent = image.alt ? `${say("pictureMissing")} (${image.alt})` : say("pictureMissing");
  image.replaceWith(missing);
}

/** Formulas in HTML, such as the cells of a table, where Markdown is not read. */
function findFormulas(element) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT, (node) =>
    node.parentElement.closest("code, pre") || !node.data.includes("$") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT,
  );
  const found = [];
  while (walker.nextNode()) found.push(walker.currentNode);
  for (const node of found) {
    const pieces = [];
    let from = 0;
    for (const match of node.data.matchAll(ANYWHERE)) {
      const display = match[0].startsWith("$$");
      const inline = display ? null : INLINE.exec(node.data.slice(match.index));
      if (!display && !inline) continue;
      const code = document.createElement("code");
      code.dataset.formula = display ? "display" : "inline";
      code.textContent = display ? match[0].slice(2, -2) : token("inline", inline).tex;
      pieces.push(node.data.slice(from, match.index), code);
      from = match.index + match[0].length;
    }
    if (pieces.length) node.replaceWith(...pieces, node.data.slice(from));
  }
}

/** Draw the formulas below `root`; what KaTeX does not understand stays as its source. */
export async function drawFormulas(root) {
  const codes = root.querySelectorAll("code[data-formula]");
  if (!codes.length) return;
  await import("./vendor/katex/katex.min.js"); // sets window.katex
  for (const code of codes) {
    const drawn = document.createElement("span");
    drawn.className = "formula";
    try {
      if (code.textContent.length > LONGEST_FORMULA) throw new Error("too long");
      window.katex.render(code.textContent, drawn, { ...FORMULA, displayMode: code.dataset.formula === "display" });
      code.replaceWith(drawn);
    } catch {
      code.removeAttribute("data-formula");
      code.title = say("formulaSource");
    }
  }
}

const MAGIC = [
  ["image/jpeg", [0xff, 0xd8, 0xff]],
  ["image/png", [0x89, 0x50, 0x4e, 0x47]],
  ["image/webp", [0x52, 0x49, 0x46, 0x46]],
];

/** Base64 to a Blob when it is a JPEG, PNG or WebP; else null: nothing else is a picture of a reply (SVG least of all). */
export function pictureOf(base64) {
  let bytes;
  try {
    bytes = Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0));
  } catch {
    return null; // a URL, from a service that stores its pictures elsewhere
  }
  const kind = MAGIC.find(([, magic]) => magic.every((byte, place) => bytes[place] === byte));
  return kind ? new Blob([bytes], { type: kind[0] }) : null;
}
