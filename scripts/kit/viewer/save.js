// What leaves the page: the clipboard, and files. A file with pictures beside is a ZIP, stored, as JPEGs do not shrink.

/** Copy a text; also where the browser has no clipboard for this page, which it has only by HTTPS or on this machine. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.readOnly = true;
  area.className = "aside";
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  const before = document.activeElement;
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus();
  if (!done) throw new Error("the browser does not copy");
}

/** Let the browser save a Blob. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser reads it after the click
}

/** A file's name without its suffix, as the start of another one's. */
export function stem(name) {
  return name.replace(/\.[^.]*$/, "").replace(/[\\/:*?"<>|\p{Cc}]+/gu, "_").slice(0, 100) || "document";
}

/**
 * Markdown of all pages, and its pictures by path. pages: `markdown` of each page of the document, in its order.
 * Pictures of different pages may have one name: with several pages each page has a folder.
 */
export function together(pages, pictureOf) {
  const pictures = new Map();
  const texts = pages.map(({ text, images }, index) => {
    const folder = pages.length > 1 ? `page-${String(index + 1).padStart(4, "0")}/` : "";
    for (const [name, content] of Object.entries(images ?? {})) {
      const blob = isSafe(name) ? pictureOf(content) : null;
      if (!blob) continue;
      pictures.set(folder + name, blob);
      if (folder) text = text.replaceAll(`"${name}"`, `"${folder}${name}"`).replaceAll(`(${name})`, `(${folder}${name})`);
    }
    return text.trim();
  });
  return { text: texts.filter(Boolean).join("\n\n") + "\n", pictures };
}

/** Whether a picture's name, which the service has sent, stays in the folder that it is unpacked in. */
export function isSafe(name) {
  return /^[\w-][\w.-]*(\/[\w-][\w.-]*)*$/.test(name);
}

/** A ZIP of name → Blob (APPNOTE 6.3: local headers, central directory, names in UTF-8). */
export async function zip(files) {
  const pieces = [];
  const directory = [];
  let offset = 0;
  for (const [name, blob] of files) {
    const data = new Uint8Array(await blob.arrayBuffer());
    const path = new TextEncoder().encode(name);
    // version 2.0, names in UTF-8, stored, 1980-01-01, checksum, sizes, length of the name
    const common = [[2, 20], [2, 0x800], [2, 0], [2, 0], [2, 0x21], [4, crc32(data)], [4, data.length], [4, data.length]];
    const local = record([[4, 0x04034b50], ...common, [2, path.length], [2, 0]]);
    directory.push(record([[4, 0x02014b50], [2, 20], ...common, [2, path.length], [2, 0], [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]]), path);
    pieces.push(local, path, data);
    offset += local.length + path.length + data.length;
  }
  const size = directory.reduce((sum, piece) => sum + piece.length, 0);
  const end = record([[4, 0x06054b50], [2, 0], [2, 0], [2, files.size], [2, files.size], [4, size], [4, offset], [2, 0]]);
  return new Blob([...pieces, ...directory, end], { type: "application/zip" });
}

function record(fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [width]) => sum + width, 0)));
  let at = 0;
  for (const [width, value] of fields) {
    if (width === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += width;
  }
  return new Uint8Array(view.buffer);
}

const TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(data) {
  let sum = 0xffffffff;
  for (const byte of data) sum = TABLE[(sum ^ byte) & 0xff] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}
