// A document through the service: page by page where it can be cut, so that there is something to see after the first
// page, and a page that cannot be read costs no other. The plain API takes this as the gateway does.

import { encoded, post, ServiceError } from "./api.js";

const AT_ONCE = 4; // pages; the gateway spreads them over its replicas, the plain API queues them
// Fields that say how pages are put together: they are for /restructure-pages once all pages are there.
const OVER_PAGES = ["mergeTables", "relevelTitles", "prettifyMarkdown", "showFormulaNumber", "returnMarkdownImages"];
// Not of a page, but of the request or the key: the next page would fare the same.
const FOR_ALL = new Set([401, 403, 404, 405, 415]);

/**
 * What came of a document. pages: a result each, or null; read: the same as the service has read it, before pages are put
 * together. errors: an Error each, or null. isWhole: nothing is missing.
 */
export class Outcome {
  constructor(count) {
    this.pages = Array(count).fill(null);
    this.read = Array(count).fill(null);
    this.errors = Array(count).fill(null);
    this.sizes = Array(count).fill(null);
    this.isWhole = false;
  }

  get done() {
    return this.pages.filter((page, index) => page || this.errors[index]).length;
  }

  /** Indexes of the pages that are not there. */
  get missing() {
    return [...this.pages.keys()].filter((index) => !this.pages[index]);
  }
}

/**
 * Send of `file` (see file.js) the pages that `outcome` lacks, with `fields`; results go there as they come, `onPage(index)`
 * after each. Throws ServiceError where nothing more can be had, AbortError when stopped.
 */
export async function parse(file, fields, key, signal, outcome, onPage) {
  file.canBeCut &&= await isCut(file);
  if (file.canBeCut) await byPage(file, fields, key, signal, outcome, onPage);
  else await whole(file, fields, key, signal, outcome, onPage);
  outcome.isWhole = !outcome.missing.length;
}

async function byPage(file, { restructurePages, ...fields }, key, signal, outcome, onPage) {
  const wanted = outcome.missing;
  let next = 0;
  let good = 0; // pages that were read in this run
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const worker = async () => {
    while (next < wanted.length && !both.aborted) {
      const index = wanted[next++];
      const before = good;
      try {
        const result = await send(file, await file.cut(index + 1), fields, key, both);
        if (result.layoutParsingResults.length !== 1) throw new ServiceError(200, "");
        outcome.pages[index] = outcome.read[index] = result.layoutParsingResults[0];
        outcome.sizes[index] = result.dataInfo?.pages?.[0] ?? null;
        good++;
      } catch (error) {
        // What does not pass, while no other page gets through either, is the service's.
        if (both.aborted || FOR_ALL.has(error.status) || (error.isPassing && good === before)) throw error;
        outcome.errors[index] = error;
      }
      onPage(index);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, wanted.length) }, worker));
  } finally {
    stop.abort();
  }
  signal.throwIfAborted();
  if (restructurePages) await overPages(fields, key, signal, outcome, onPage);
}

async function isCut(file) {
  try {
    return Boolean(await file.cut(1));
  } catch {
    return false;
  }
}

async function whole(file, fields, key, signal, outcome, onPage) {
  const result = await send(file, file.bytes, fields, key, signal);
  result.layoutParsingResults.forEach((page, index) => {
    outcome.pages[index] = page;
    outcome.errors[index] ??= null;
    outcome.sizes[index] = result.dataInfo?.pages?.[index] ?? result.dataInfo ?? null;
    onPage(index);
  });
  for (let index = result.layoutParsingResults.length; index < file.pages; index++) {
    outcome.errors[index] = new ServiceError(200, "");
    onPage(index);
  }
}

async function send(file, bytes, fields, key, signal) {
  const body = { ...fields, file: await encoded(bytes), fileType: file.type };
  return post("layout-parsing", body, key, signal);
}

/** restructurePages: the pages that could be read, put together by the service. */
async function overPages(fields, key, signal, outcome, onPage) {
  const places = outcome.read.flatMap((page, index) => (page ? [index] : []));
  if (places.length < 2) return;
  const body = { ...joining(fields), pages: places.map((index) => asInput(outcome.read[index], false)), concatenatePages: false };
  const result = await post("restructure-pages", body, key, signal);
  places.forEach((place, index) => {
    const { prunedResult, markdown } = result.layoutParsingResults[index];
    const before = outcome.read[place];
    outcome.pages[place] = { ...before, prunedResult, markdown: { ...before.markdown, text: markdown.text } };
    onPage(place);
  });
}

/** All pages as one DOCX. Throws ServiceError; so does a service that makes none. */
export async function docx(pages, fields, key, signal) {
  const how = { mergeTables: Boolean(fields.restructurePages), relevelTitles: Boolean(fields.restructurePages), ...joining(fields) };
  const body = { ...how, pages: pages.map((page) => asInput(page, true)), concatenatePages: true, outputFormats: ["docx"] };
  const result = await post("restructure-pages", body, key, signal);
  const content = result.layoutParsingResults[0]?.exports?.docx?.content;
  if (typeof content !== "string") throw new ServiceError(200, "");
  return new Blob([Uint8Array.from(atob(content), (sign) => sign.charCodeAt(0))], {
    type: "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
  });
}

function joining(fields) {
  return Object.fromEntries(OVER_PAGES.filter((name) => name in fields).map((name) => [name, fields[name]]));
}

function asInput(page, withPictures) {
  return { prunedResult: page.prunedResult, markdownImages: withPictures ? (page.markdown.images ?? null) : null };
}
