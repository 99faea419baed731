// What the pages of the examples share.

export const $ = (id) => document.getElementById(id);

export function make(name, className, text = "") {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text; // never innerHTML: it is other people's text
  return node;
}
