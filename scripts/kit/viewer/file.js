// A chosen file: what it is, its pages as pictures, its pages as documents of their own.

import { say } from "./words.js";

export const PDF = 0; // values of `fileType` in the API
export const PICTURE = 1;
const HEADER_WITHIN = 1024; // bytes in which %PDF- may stand (ISO 32000-1, annex H)
const MOST_PIXELS = 2_000_000; // of a page's picture on the screen
const HERE = new URL("vendor/pdfjs/", import.meta.url);

/** Open a File. Throws Error with a sentence for people. */
export async function open(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (!bytes.length) throw new Error(say("empty"));
  const head = new TextDecoder("latin1").decode(bytes.subarray(0, HEADER_WITHIN));
  return head.includes("%PDF-") ? openPdf(file, bytes) : openPicture(file, bytes);
}

/** A PDF. Where pdf.js cannot open it, the service still may: it gets the whole, and no picture is shown. */
async function openPdf(file, bytes) {
  const pdfjs = await import("./vendor/pdfjs/pdf.min.mjs");
  pdfjs.GlobalWorkerOptions.workerSrc = new URL("pdf.worker.min.mjs", HERE).href;
  const task = pdfjs.getDocument({
    data: bytes.slice(), // pdf.js takes the bytes away to its worker
    cMapUrl: new URL("cmaps/", HERE).href,
    wasmUrl: new URL("wasm/", HERE).href,
    useWasm: false, // the policy of this page compiles nothing: decoders in plain JavaScript do
    enableXfa: false,
    stopAtErrors: false,
  });
  try {
    return new Pdf(file.name, bytes, task, await task.promise);
  } catch (error) {
    await task.destroy();
    if (error.name === "PasswordException") throw new Error(say("encrypted"));
    return new Whole(file.name, bytes, PDF);
  }
}

async function openPicture(file, bytes) {
  try {
    const blob = new Blob([bytes], { type: file.type });
    (await createImageBitmap(blob)).close();
    return new Picture(file.name, bytes, blob);
  } catch {
    return new Whole(file.name, bytes, PICTURE); // a TIFF, or nothing that the service reads either: it says so
  }
}

/** A document that goes to the service as it is. pages: unknown (0). */
class Whole {
  constructor(name, bytes, type) {
    Object.assign(this, { name, bytes, type, pages: 0, canBeCut: false });
  }

  async sheet() {
    return null;
  }

  close() {}
}

class Picture extends Whole {
  constructor(name, bytes, blob) {
    super(name, bytes, PICTURE);
    this.pages = 1;
    this.url = URL.createObjectURL(blob);
  }

  async sheet() {
    const image = new Image();
    image.src = this.url;
    await image.decode();
    return image;
  }

  close() {
    URL.revokeObjectURL(this.url);
  }
}

class Pdf extends Whole {
  constructor(name, bytes, task, pdf) {
    super(name, bytes, PDF);
    this.pages = pdf.numPages;
    this.canBeCut = pdf.numPages > 1;
    this.task = task;
    this.pdf = pdf;
  }

  /** The bytes of a PDF with this page alone (from 1). Throws where pdf.js cannot write it. */
  async cut(number) {
    const bytes = await this.pdf.extractPages([{ document: null, includePages: [number - 1] }]);
    if (!bytes?.length) throw new Error("nothing was written");
    return bytes;
  }

  /** A canvas with the page (from 1); null where it cannot be drawn. */
  async sheet(number) {
    try {
      const page = await this.pdf.getPage(number);
      const size = page.getViewport({ scale: 1 });
      const scale = Math.min(2, Math.sqrt(MOST_PIXELS / (size.width * size.height)));
      const viewport = page.getViewport({ scale });
      const canvas = document.createElement("canvas");
      canvas.width = Math.ceil(viewport.width);
      canvas.height = Math.ceil(viewport.height);
      await page.render({ canvas, viewport }).promise;
      page.cleanup();
      return canvas;
    } catch {
      return null;
    }
  }

  close() {
    this.task.destroy();
  }
}
