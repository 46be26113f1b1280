// One page on the screen: its picture with the blocks drawn, its Markdown beside, both linked.

import { link, textOf } from "./link.js";
import { drawFormulas, pictureOf, render } from "./markdown.js";
import { say, sayOr } from "./words.js";

const LABEL_LENGTH = 60; // characters of a block's text in its name for a screen reader
const ALIKE = 0.03; // pictures' proportions may differ by so much, by rounding
// PaddleX's labels (PP-DocLayout) by how they are drawn; the rest is text.
const KINDS = {
  title: ["doc_title", "paragraph_title", "figure_title", "table_title", "chart_title"],
  table: ["table"],
  formula: ["display_formula", "inline_formula", "formula", "formula_number"],
  picture: ["image", "chart", "seal", "header_image", "footer_image"],
  aside: ["header", "footer", "number", "footnote", "aside_text", "vision_footnote"],
};
const KIND_OF = new Map(Object.entries(KINDS).flatMap(([kind, labels]) => labels.map((label) => [label, kind])));
// Blocks that have no text of their own (as scripts/kit/reply.py).
const NO_TEXT = new Set(KINDS.picture);

/** Draws pages when they come near the screen, and lets go of those that are far: a canvas takes megabytes. */
const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) target.view.seen(isIntersecting);
  },
  { rootMargin: "1500px" },
);

export class PageView {
  /** file: as file.js opens it. number: from 1. onBlock: called with a block, its name and its button when it is chosen. */
  constructor(file, number, onBlock) {
    Object.assign(this, { file, number, onBlock, urls: [], isNear: false, isPictureWanted: true });
    this.element = make("li", "page");
    this.element.id = `page-${number}`;
    this.title = make("h3");
    this.title.textContent = say("page", { page: number });
    this.note = make("p", "note");
    this.body = make("div", "sides");
    this.paper = make("div", "paper");
    this.sheet = make("div", "sheet waiting");
    this.sheet.setAttribute("role", "group");
    this.sheet.setAttribute("aria-label", say("blocks", { page: number }));
    this.text = make("div", "text");
    this.text.setAttribute("role", "region");
    this.text.setAttribute("aria-label", say("text", { page: number }));
    this.text.tabIndex = 0;
    this.paper.append(this.sheet);
    this.body.append(this.paper, this.text);
    this.element.append(this.title, this.note, this.body);
    this.element.view = this;
    near.observe(this.element);
  }

  /** The page is asked for once more. */
  wait() {
    this.element.classList.remove("failed");
    this.sheet.classList.add("waiting");
    this.note.textContent = "";
  }

  /** The page was read. result: one of `layoutParsingResults`. */
  show(result) {
    this.release();
    this.element.classList.remove("failed");
    this.sheet.classList.remove("waiting");
    this.note.textContent = "";
    const pruned = result.prunedResult ?? {};
    const found = Array.isArray(pruned.parsing_res_list) ? pruned.parsing_res_list : [];
    this.blocks = found.filter((block) => block && typeof block === "object");
    this.size = [Number(pruned.width), Number(pruned.height)];
    if (wasChanged(pruned)) this.leavePictureOut("turned");
    this.showText(result.markdown ?? {});
    this.showBlocks();
    if (this.drawn) this.checkProportions();
    const toRead = this.blocks.filter((block) => !NO_TEXT.has(block.block_label));
    const isEmpty = (block) => !textOf(block.block_content).replace(/<[^<>]*>|\$/g, "").trim();
    if (!this.blocks.length) this.note.textContent = say("blank");
    else if (toRead.length && toRead.every(isEmpty)) this.note.textContent = say("unread");
  }

  /** The page could not be read; why, for people. */
  fail(sentence) {
    this.element.classList.add("failed");
    this.sheet.classList.remove("waiting");
    this.note.textContent = sentence;
  }

  showText(markdown) {
    const pictures = new Map();
    for (const [name, content] of Object.entries(markdown.images ?? {})) {
      const blob = pictureOf(textOf(content));
      if (blob) {
        pictures.set(name, URL.createObjectURL(blob));
        this.urls.push(pictures.get(name));
      }
    }
    const parts = render(textOf(markdown.text), pictures);
    this.parts = parts.map((part) => part.element);
    this.links = link(parts.map((part) => part.source), this.blocks);
    this.text.replaceChildren(...this.parts);
    drawFormulas(this.text);
    this.parts.forEach((part, index) => {
      const blocks = this.links[index];
      if (!blocks.length) return;
      part.classList.add("linked");
      part.addEventListener("pointerenter", () => this.mark(blocks, true));
      part.addEventListener("pointerleave", () => this.mark(blocks, false));
      part.addEventListener("click", (event) => {
        if (event.target.closest("a") || !document.getSelection().isCollapsed) return;
        this.choose(blocks[0]);
      });
    });
  }

  showBlocks() {
    for (const button of this.sheet.querySelectorAll(".block")) button.remove();
    const [width, height] = this.size;
    this.buttons = new Map();
    if (!(width > 0 && height > 0)) return;
    this.sheet.style.setProperty("--ratio", width / height);
    const boxes = this.blocks.map((block) => boxOf(block, width, height));
    const order = [...boxes.keys()].filter((index) => boxes[index]).sort((a, b) => boxes[b].area - boxes[a].area);
    boxes.forEach((box, index) => {
      if (!box) return;
      const button = make("button", `block kind-${KIND_OF.get(this.blocks[index].block_label) ?? "text"}`);
      button.type = "button";
      button.setAttribute("aria-label", this.nameOf(index));
      button.tabIndex = this.buttons.size ? -1 : 0; // one stop for Tab, the arrow keys go on from there
      Object.assign(button.style, box.place);
      button.style.zIndex = 1 + order.indexOf(index); // the smaller one above the one that it lies in
      for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => this.mark([index], true));
      for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => this.mark([index], false));
      button.addEventListener("focus", () => this.partsOf(index)[0]?.scrollIntoView({ block: "nearest" }));
      button.addEventListener("click", () => this.choose(index));
      button.addEventListener("keydown", (event) => this.go(event, button));
      this.buttons.set(index, button);
    });
    this.sheet.append(...this.buttons.values());
  }

  nameOf(index) {
    const block = this.blocks[index];
    const label = textOf(block.block_label);
    const text = textOf(block.block_content).replace(/<[^<>]*>/g, " ").replace(/\s+/g, " ").trim();
    const start = text.length > LABEL_LENGTH ? `${text.slice(0, LABEL_LENGTH)}…` : text;
    return say("block", { number: index + 1, label: sayOr(`label.${label}`, label.replaceAll("_", " ")), text: start });
  }

  partsOf(index) {
    return this.parts.filter((_, part) => this.links[part].includes(index));
  }

  /** Mark blocks and the parts that come from them, or take the mark away. */
  mark(indexes, on) {
    for (const index of indexes) {
      this.buttons.get(index)?.classList.toggle("on", on);
      for (const part of this.partsOf(index)) part.classList.toggle("on", on);
    }
  }

  choose(index) {
    this.onBlock(this.blocks[index], this.nameOf(index), this.buttons.get(index));
  }

  go(event, button) {
    const all = [...this.buttons.values()];
    const [index, last] = [all.indexOf(button), all.length - 1];
    const to = { ArrowDown: index + 1, ArrowRight: index + 1, ArrowUp: index - 1, ArrowLeft: index - 1, Home: 0, End: last };
    if (!Object.hasOwn(to, event.key) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const next = all[Math.max(0, Math.min(last, to[event.key]))];
    for (const one of all) one.tabIndex = one === next ? 0 : -1;
    next.focus();
  }

  /** Whether the page is near the screen. */
  async seen(isNear) {
    this.isNear = isNear;
    if (!isNear) this.forget();
    if (!isNear || this.drawn || !this.isPictureWanted) return;
    const drawn = await this.file.sheet(this.number).catch(() => null);
    if (this.drawn || !this.isPictureWanted) return;
    if (!drawn) return this.leavePictureOut("noPicture");
    if (!this.isNear) return;
    this.drawn = drawn;
    drawn.classList.add("picture");
    // For a screen reader the page is its text and its blocks.
    drawn.setAttribute("aria-hidden", "true");
    if (drawn.tagName === "IMG") drawn.alt = "";
    this.sheet.prepend(drawn);
    const [width, height] = proportions(drawn);
    if (this.buttons?.size) this.checkProportions();
    else this.sheet.style.setProperty("--ratio", width / height);
  }

  checkProportions() {
    const [width, height] = proportions(this.drawn);
    if (Math.abs((width * this.size[1]) / (height * this.size[0]) - 1) > ALIKE) this.leavePictureOut("turned");
  }

  leavePictureOut(why) {
    this.isPictureWanted = false;
    this.forget();
    const note = make("p", "note");
    note.textContent = say(why);
    this.paper.querySelector(".note")?.remove();
    this.paper.prepend(note);
  }

  forget() {
    this.drawn?.remove();
    this.drawn = null;
  }

  release() {
    for (const url of this.urls) URL.revokeObjectURL(url);
    this.urls = [];
  }

  /** The page goes for good. */
  close() {
    near.unobserve(this.element);
    this.release();
    this.element.remove();
  }
}

function wasChanged(pruned) {
  const done = pruned.doc_preprocessor_res;
  return Boolean(done?.model_settings?.use_doc_unwarping) || [90, 180, 270].includes(done?.angle);
}

/** Where a block lies on a page of that size, in percent; null where it says no such thing. Parts beyond the page are cut off. */
function boxOf(block, width, height) {
  if (!Array.isArray(block.block_bbox)) return null;
  const inside = (edge, size) => Math.max(0, Math.min(100, (100 * edge) / size));
  const [left, top, right, bottom] = block.block_bbox.map((edge, side) => inside(Number(edge), side % 2 ? height : width));
  if (!(right > left && bottom > top)) return null;
  const place = { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` };
  return { place, area: (right - left) * (bottom - top) };
}

function proportions(drawn) {
  return [drawn.naturalWidth || drawn.width, drawn.naturalHeight || drawn.height];
}

function make(name, className = "") {
  const element = document.createElement(name);
  element.className = className;
  return element;
}
