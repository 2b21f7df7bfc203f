// The text on the page: prompt and continuation as text nodes, and a scroll that yields to the reader.

import { announce } from "./announcer.js";
import { element, make } from "./dom.js";

const NEAR = 32; // pixels from the end that still count as being there

const view = element("story", HTMLElement);
const text = element("text", HTMLElement);
const label = element("story-label", HTMLElement);
const field = element("edited", HTMLTextAreaElement);
const followButton = element("follow", HTMLButtonElement);

let tail = /** @type {Text} */ (text.lastElementChild?.firstChild); // of index.html, recorded
let following = true;
let drawn = true; // false while a frame is awaited
let streaming = false;

view.addEventListener("scroll", () => {
  following = view.scrollHeight - view.scrollTop - view.clientHeight < NEAR;
  followButton.hidden = following || !streaming;
});
followButton.addEventListener("click", () => {
  view.scrollTop = view.scrollHeight;
  view.focus();
});

/** The text as it is now, as a function that shows it again, also after its nodes were moved. */
export function keepStory() {
  const [nodes, heading] = [[...text.childNodes], label.textContent];
  const inner = nodes.map(({ childNodes }) => [...childNodes]);
  return () => {
    nodes.forEach((node, i) => node instanceof HTMLSpanElement && node.replaceChildren(...inner[i]));
    text.replaceChildren(...nodes);
    label.textContent = heading;
  };
}

/** Cuts the text before `token`, one of its parts' nodes, and appends another. @param {HTMLElement} token @param {HTMLElement} next */
export function cutStory(token, next) {
  const nodes = [...text.childNodes];
  const part = nodes.findIndex((node) => node.contains(token));
  const inner = [...nodes[part].childNodes];
  const before = inner.slice(0, inner.indexOf(token));
  text.replaceChildren(...nodes.slice(0, part), make("span", "", ...before, next));
}

/**
 * Puts other text in place of characters `from` to `to`, as given text, like a prompt.
 * @param {{from: number, to: number, inserted: string}} change
 * @param {(node: Node) => boolean} stays whether a token's node is as before; the others become plain text
 * @param {string} heading
 */
export function editStory({ from, to, inserted }, stays, heading) {
  const [before, after] = [slice(0, from, stays), slice(to, Infinity, stays)];
  const given = inserted ? [make("span", "prompt", inserted)] : [];
  const made = (/** @type {Slice[]} */ parts) => parts.map(({ className, nodes }) => make("span", className, ...nodes));
  text.replaceChildren(...made(before), ...given, ...made(after));
  label.textContent = heading;
}

/** @typedef {{className: string, nodes: (Node | string)[]}} Slice of a part of the text */

/** The parts of the text between two characters. @param {number} from @param {number} to @param {(node: Node) => boolean} stays @returns {Slice[]} */
function slice(from, to, stays) {
  let end = 0;
  return [...text.childNodes].flatMap((part) => {
    const nodes = [...part.childNodes].flatMap((node) => {
      const [all, begin] = [node.textContent ?? "", end];
      end += all.length;
      if (begin >= from && end <= to && stays(node)) return /** @type {(Node | string)[]} */ ([node]);
      const shown = all.slice(Math.max(0, from - begin), Math.max(0, to - begin));
      return shown ? [shown] : [];
    });
    return nodes.length ? [{ className: part instanceof HTMLElement ? part.className : "", nodes }] : [];
  });
}

/** Clears the page for a new text. @param {string} prompt */
export function beginStory(prompt) {
  text.replaceChildren(make("span", "prompt", prompt));
  view.scrollTop = 0;
}

/** Shows a whole text, which may begin with the prompt. @param {string} whole @param {string} prompt @param {string} heading */
export function showStory(whole, prompt, heading) {
  const given = whole.startsWith(prompt) ? prompt : "";
  beginStory(given);
  text.append(make("span", "", whole.slice(given.length)));
  label.textContent = heading;
}

/** Begins the next part of the text. @param {string} heading */
export function beginPart(heading) {
  tail = document.createTextNode("");
  text.append(make("span", "", tail));
  label.textContent = heading;
  streaming = true;
  following = true;
  view.dataset.state = "streaming";
}

/** @param {string} piece @param {Node | null} [token] the node that shows it; null: it is appended to the text before */
export function appendStory(piece, token = null) {
  if (token) tail.before(token);
  else tail.appendData(piece);
  announce(piece);
  if (!drawn) return;
  drawn = false;
  requestAnimationFrame(() => {
    drawn = true;
    if (following) view.scrollTop = view.scrollHeight;
  });
}

/** Shows the continuation as other nodes: its tokens. @param {Node[]} nodes */
export function replaceStory(nodes) {
  tail.replaceWith(...nodes);
}

export function endStory() {
  streaming = false;
  followButton.hidden = true;
  delete view.dataset.state;
}

/** Prompt and continuation, as they are edited now. */
export function storyText() {
  if (!field.hidden) return field.value;
  const nodes = [...text.childNodes].filter((node) => !(node instanceof HTMLButtonElement)); // of several texts
  return nodes.map(({ textContent }) => textContent).join("");
}
