// Errors of texts, below the Generate button.

import { element } from "./dom.js";
import { sentence } from "./format.js";

const line = element("writing-error", HTMLElement);

/** Shows an error. @param {unknown} problem */
export function complain(problem) {
  line.textContent = sentence(problem instanceof Error ? problem.message : String(problem));
  line.scrollIntoView({ block: "nearest" });
}

/** Removes the error that is shown. */
export function withdraw() {
  line.textContent = "";
}
