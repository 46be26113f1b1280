// Which part of the Markdown comes from which blocks: by the pictures' names, which hold their boxes, and by the text.

const SHORT = 4; // characters: less stands in other texts by chance
// PaddleX names a picture after its box: imgs/img_in_image_box_72_1000_800_1400.jpg (paddlex 3.7.2, pipelines/paddleocr_vl).
const BOX_IN_NAME = /_(\d+)_(\d+)_(\d+)_(\d+)\.\w+/g;

/** What a field of a reply says as text; it should be one, and need not. */
export function textOf(value) {
  return typeof value === "string" ? value : value == null ? "" : JSON.stringify(value);
}

/** Letters and digits alone: how text, Markdown and HTML of one block agree. */
export function bare(text) {
  return text.replace(/<[^<>]*>/g, "").replace(/[^\p{L}\p{N}]+/gu, "").toLowerCase();
}

/**
 * For each part the indexes of its blocks, in order; none where nothing fits.
 * sources: the parts' Markdown. blocks: `parsing_res_list` of a page.
 */
export function link(sources, blocks) {
  const texts = blocks.map((block) => bare(textOf(block.block_content)));
  const used = new Set();
  let last = -1;
  return sources.map((source) => {
    const found = byPicture(source, blocks);
    if (!found.length) found.push(...byText(bare(source), texts, used, last));
    for (const index of found) used.add(index);
    if (found.length) last = found.at(-1);
    return found;
  });
}

function byPicture(source, blocks) {
  const boxes = [...source.matchAll(BOX_IN_NAME)].map((match) => match.slice(1, 5).map(Number));
  return boxes.flatMap((box) => {
    const index = blocks.findIndex((block) => box.every((edge, side) => Math.abs(edge - block.block_bbox?.[side]) <= 1));
    return index < 0 ? [] : [index];
  });
}

function byText(text, texts, used, last) {
  if (!text) return [];
  const fitting = (fits) => texts.flatMap((one, index) => (one && fits(one) ? [index] : []));
  const nearest = (indexes) => indexes.find((index) => index >= last && !used.has(index)) ?? indexes.find((i) => !used.has(i));
  const same = fitting((one) => one === text);
  if (same.length) return [nearest(same) ?? same[0]];
  // A block of several paragraphs, or a paragraph of several blocks.
  const around = text.length >= SHORT ? fitting((one) => one.includes(text)) : [];
  if (around.length) return [around.find((index) => index >= last) ?? around[0]];
  return fitting((one) => one.length >= SHORT && text.includes(one));
}
