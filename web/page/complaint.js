// Errors of texts, below the Generate button.

import { element } from "./dom.js";
import { sentence } from "./format.js";

const line = element("writing-error", HTMLElement);
const ofLink = element("link-damaged", HTMLElement);

/** What a caller of the library could do, and the page does not offer. */
const ELSEWHERE = /, or begin one with another (maxLength or )?contextPolicy$/;

/** Shows an error. @param {unknown} problem */
export function complain(problem) {
  const message = problem instanceof Error ? problem.message : String(problem);
  line.textContent = sentence(message.replace(ELSEWHERE, ""));
  line.scrollIntoView({ block: "nearest" });
}

/** Removes the errors that are shown. */
export function withdraw() {
  line.textContent = "";
  ofLink.hidden = true;
}
