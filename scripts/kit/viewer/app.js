// The page: what is chosen, what runs, what is shown.

import { headers, ServiceError } from "./api.js";
import { open } from "./file.js";
import { pictureOf } from "./markdown.js";
import { build, read, schemaIn } from "./options.js";
import { PageView } from "./page.js";
import { docx, Outcome, parse } from "./run.js";
import { copy, save, stem, together, zip } from "./save.js";
import { fill, load, say } from "./words.js";

const KEY = "api-key"; // in sessionStorage: gone with the tab
const $ = (id) => document.getElementById(id);

let file = null;
let outcome = new Outcome(0);
let views = [];
let running = null; // AbortController of what is being read
let chosen = 0; // how often a document was chosen: of two that are being opened the later one counts
let sent = {}; // the options that the shown result was asked for with

await load();
fill();
$("key").value = sessionStorage.getItem(KEY) ?? "";
await describeOptions();

// --- what is chosen

$("file").addEventListener("change", () => {
  const [given] = $("file").files;
  $("file").value = ""; // the same file again is a change too
  take(given);
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dragging", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
addEventListener("paste", (event) => {
  const [pasted] = event.clipboardData.files;
  if (pasted) take(pasted);
});
$("key").addEventListener("change", () => {
  if ($("key").value.trim()) sessionStorage.setItem(KEY, $("key").value.trim());
  else sessionStorage.removeItem(KEY);
  describeOptions();
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (file) again();
});
$("options-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (file) again();
});
$("stop").addEventListener("click", () => running?.abort());

function key() {
  return $("key").value.trim();
}

async function take(given) {
  if (!given) return;
  const turn = ++chosen;
  running?.abort();
  running = null; // what is left of it says nothing about this document
  clear();
  file?.close();
  file = null;
  document.querySelector("main").classList.remove("empty");
  $("result-title").textContent = given.name;
  $("status").textContent = say("opening", { name: given.name });
  let opened;
  try {
    opened = await open(given);
  } catch (error) {
    if (turn !== chosen) return;
    $("status").textContent = "";
    $("problem").textContent = `${given.name}: ${error.message}`;
    return;
  }
  if (turn !== chosen) return opened.close();
  file = opened;
  await again();
}

async function describeOptions() {
  try {
    const reply = await fetch("openapi.json", { headers: headers(key()), credentials: "omit" });
    const found = reply.ok ? schemaIn(await reply.json()) : null;
    if (found) {
      const before = new Map([...$("options-form").elements].map(({ name, value }) => [name, value]));
      build($("options-form"), found);
      for (const control of $("options-form").elements) control.value = before.get(control.name) ?? "";
    }
    $("options-note").textContent = say(found ? "optionsNote" : reply.status === 401 ? "optionsKey" : "optionsNone");
  } catch {
    $("options-note").textContent = say("optionsNone");
  }
}

// --- what runs

async function again() {
  running?.abort();
  if (!$("options-form").checkValidity()) {
    $("options").open = true;
    $("options-form").reportValidity();
    return;
  }
  const fields = read($("options-form"));
  // What is missing alone, where the rest was read in the same way.
  if (file.canBeCut && outcome.done && !outcome.isWhole && JSON.stringify(fields) === JSON.stringify(sent)) {
    for (const index of outcome.missing) views[index].wait();
    outcome.errors.fill(null);
    $("problem").textContent = "";
  } else {
    clear();
    outcome = new Outcome(file.pages);
    for (let number = 1; number <= file.pages; number++) addView();
  }
  sent = fields;
  const controller = (running = new AbortController());
  $("progress").hidden = $("stop").hidden = false;
  $("again").hidden = true;
  if (file.canBeCut) showProgress();
  else {
    $("progress").removeAttribute("value");
    $("status").textContent = say("reading", { name: file.name });
  }
  try {
    await parse(file, sent, key(), controller.signal, outcome, (index) => {
      if (controller !== running) return;
      if (index >= views.length) addView();
      if (outcome.pages[index]) views[index].show(outcome.pages[index]);
      else views[index].fail(whyMissing(index));
      $("actions").hidden = !outcome.pages.some(Boolean);
      if (file.canBeCut) showProgress();
    });
    if (controller === running) finish();
  } catch (error) {
    if (controller !== running) return;
    finish(error.name === "AbortError" ? say("stopped", counts()) : "");
    if (error.name !== "AbortError") $("problem").textContent = sentenceOf(error);
    if (error.status === 401) $("key").focus();
  }
}

function addView() {
  const view = new PageView(file, views.length + 1, showBlock);
  views.push(view);
  $("pages").append(view.element);
}

function counts() {
  const failed = outcome.errors.filter(Boolean).length;
  return { done: outcome.done, pages: outcome.pages.length, failed, good: outcome.done - failed };
}

function showProgress() {
  const { done, pages } = counts();
  $("progress").max = pages;
  $("progress").value = done;
  $("status").textContent = say("progress", { done, pages });
}

function finish(sentence) {
  running = null;
  $("progress").hidden = $("stop").hidden = true;
  $("again").hidden = false;
  const { failed } = counts();
  $("status").textContent = sentence ?? say(failed ? "doneSome" : "done", counts());
  for (const [index, view] of views.entries()) {
    if (!outcome.pages[index]) view.fail(whyMissing(index));
  }
}

function clear() {
  for (const view of views) view.close();
  views = [];
  outcome = new Outcome(0);
  $("problem").textContent = $("status").textContent = "";
  $("actions").hidden = $("progress").hidden = $("stop").hidden = $("again").hidden = true;
}

/** An error for people: what it means, the service's own words, where to look for it in its log. */
function sentenceOf(error) {
  if (!(error instanceof ServiceError)) return say("broken", { message: error.message });
  const { status, message, logId } = error;
  const meaning = say(
    status === 0 ? "unreachable" : status === 200 ? "badReply" : status === 401 ? "noKey" : status === 413 ? "tooLarge"
    : status === 404 || status === 405 ? "noService" : status === 429 || status === 503 ? "busy" : status >= 500 ? "failed" : "refused",
  );
  const words = message ? ` ${say("itSays", { status, message })}` : status > 200 ? ` (HTTP ${status})` : "";
  return `${meaning}${words}${logId ? ` ${say("logId", { logId })}` : ""}`;
}

// --- one block

function showBlock(block, name, button) {
  $("block-title").textContent = name;
  $("block-json").textContent = JSON.stringify(block, null, 2);
  $("block-status").textContent = "";
  $("block").showModal();
  $("block").addEventListener("close", () => button?.focus(), { once: true });
}
$("block-close").addEventListener("click", () => $("block").close());
$("block-copy").addEventListener("click", () => tell($("block-status"), copy($("block-json").textContent)));
$("block").addEventListener("click", (event) => {
  if (event.target === $("block")) $("block").close(); // the backdrop
});

// --- what leaves the page

/** Why the page at `index` is missing. */
function whyMissing(index) {
  return outcome.errors[index] ? sentenceOf(outcome.errors[index]) : say("notRead");
}

// A page that is missing says so, as in the files of ./kit parse (scripts/kit/batch/formats.py): whoever reads on must not
// take the document for whole.
function markdown() {
  const words = (index) => whyMissing(index).replace(/-(?=-)/g, "- "); // nothing ends the comment before its end
  const missing = (index) => `<!-- page ${index + 1} was not read: ${words(index)} -->`;
  const pages = outcome.pages.map((page, index) => (page ? page.markdown : { text: missing(index) }) ?? { text: "" });
  return together(pages, pictureOf);
}

function json() {
  const nothing = { prunedResult: { parsing_res_list: [] }, markdown: { text: "", images: {} } };
  const resultOf = (page, index) => ({ page: index + 1, ...(page ?? { error: whyMissing(index), ...nothing }) });
  const dataInfo = { numPages: outcome.pages.length, pages: outcome.sizes.map((size) => size ?? { width: 0, height: 0 }) };
  return JSON.stringify({ result: { layoutParsingResults: outcome.pages.map(resultOf), dataInfo } }, null, 1);
}

function saved() {
  return outcome.missing.length ? "savedSome" : "saved";
}

async function tell(place, work, done = "copied") {
  try {
    await work;
    place.textContent = say(done, { missing: outcome.missing.length, pages: outcome.pages.length });
  } catch (error) {
    place.textContent = error instanceof ServiceError ? sentenceOf(error) : say("notDone", { message: error.message });
  }
}

async function saveMarkdown() {
  const { text, pictures } = markdown();
  const blob = new Blob([text], { type: "text/markdown" });
  const name = stem(file.name);
  if (pictures.size) save(await zip(new Map([[`${name}.md`, blob], ...pictures])), `${name}.zip`);
  else save(blob, `${name}.md`);
}

async function saveJson() {
  save(new Blob([json()], { type: "application/json" }), `${stem(file.name)}.json`);
}

async function saveDocx() {
  $("status").textContent = say("making");
  const name = `${stem(file.name)}.docx`;
  try {
    save(await docx(outcome.pages.filter(Boolean), sent, key()), name);
  } catch (error) {
    // PaddleX says "Internal server error" when it lacks the package that it writes DOCX with (paddlex 3.7.2: extra `base`).
    if (error.status >= 500 || error.status === 200) throw new Error(`${say("noDocx")} ${sentenceOf(error)}`);
    throw error;
  }
}

$("copy-markdown").addEventListener("click", () => tell($("status"), copy(markdown().text)));
$("copy-json").addEventListener("click", () => tell($("status"), copy(json())));
$("save-markdown").addEventListener("click", () => tell($("status"), saveMarkdown(), saved()));
$("save-json").addEventListener("click", () => tell($("status"), saveJson(), saved()));
$("save-docx").addEventListener("click", () => tell($("status"), saveDocx(), saved()));

document.documentElement.dataset.ready = "true";
