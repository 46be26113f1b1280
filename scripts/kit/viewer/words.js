// The page's words in the browser's language.

const LANGUAGES = { en: "en", zh: "zh-CN" };
let words = {};

/** Load the words of the first of the browser's languages that there are; English where there is none. */
export async function load(preferred = navigator.languages) {
  const found = preferred.map((tag) => tag.toLowerCase().split("-")[0]).find((name) => Object.hasOwn(LANGUAGES, name)) ?? "en";
  words = await (await fetch(new URL(`locales/${found}.json`, import.meta.url))).json();
  document.documentElement.lang = LANGUAGES[found];
}

/** Put the words into every element that names one. */
export function fill(root = document) {
  for (const element of root.querySelectorAll("[data-word]")) element.textContent = say(element.dataset.word);
}

/** The sentence `name`, with {places} filled; the name itself where there is no such sentence. */
export function say(name, places = {}) {
  const sentence = Object.hasOwn(words, name) ? words[name] : name;
  return sentence.replace(/\{(\w+)\}/g, (all, place) => (Object.hasOwn(places, place) ? places[place] : all));
}

/** The sentence `name`, or `otherwise` where this language has none. */
export function sayOr(name, otherwise) {
  return Object.hasOwn(words, name) ? words[name] : otherwise;
}
