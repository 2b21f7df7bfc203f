/** Checks of what a caller gives, before it goes to the worker. Python checks the settings of texts. */

import { errorOf } from "./rpc.js";

/** @typedef {[string, (value: any) => boolean]} Kind what a value must be, in words and as a test */

const BOOLEAN = /** @type {Kind} */ (["true or false", (value) => typeof value === "boolean"]);
const FUNCTION = /** @type {Kind} */ (["a function", (value) => typeof value === "function"]);
const DTYPES = ["float32", "float16", "q8", "q4"]; // as in gpt2.d.ts

/** Options whose kind is checked here. @type {Record<string, Kind>} */
const KINDS = {
  signal: ["an AbortSignal", (value) => typeof value === "object" && "aborted" in value && "addEventListener" in value],
  onProgress: FUNCTION,
  onMemory: FUNCTION,
  dtype: [`one of ${DTYPES.join(", ")}`, (value) => DTYPES.includes(value)],
  hub: ["the URL of a host", (value) => typeof value === "string" && URL.canParse(value)],
  constraint: ["the address of a module", (value) => typeof value === "string" || value instanceof URL],
  update: BOOLEAN,
  wait: BOOLEAN,
  peak: BOOLEAN,
  details: BOOLEAN,
  tokens: BOOLEAN,
  addStartToken: BOOLEAN,
  returnAllBeams: BOOLEAN,
};

/** A value in an error's words. @param {any} value */
function shown(value) {
  if (typeof value === "string") return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
  if (Array.isArray(value)) return value.length ? `an array of ${typeof value[0]}s` : "an empty array";
  if (typeof value === "function") return "a function";
  return typeof value === "object" && value ? (value.constructor?.name ?? "an object") : String(value);
}

const wrong = (/** @type {string} */ message) => errorOf({ name: "InvalidArgumentError", message });

/**
 * The options of a call, of which undefined and null are the default; a TypeError or RangeError for others.
 *
 * @param {any} options @param {string} call its name @param {string[]} [names] all that it takes, if Python does not check them
 */
export function checked(options, call, names) {
  if (options === undefined) return {};
  if (options === null || typeof options !== "object" || Array.isArray(options)) {
    throw new TypeError(`the options of ${call} must be an object, not ${shown(options)}`);
  }
  for (const [name, value] of Object.entries(options)) {
    if (names && !names.includes(name)) throw wrong(`${call} has no option ${shown(name)}; it has ${names.join(", ")}`);
    if (!Object.hasOwn(KINDS, name) || value === undefined || value === null) continue;
    const [kind, fits] = KINDS[name];
    if (!fits(value)) throw wrong(`${name} must be ${kind}, not ${shown(value)}`);
  }
  return options;
}

/**
 * A text or ids of tokens, or with `several` an array of them; a TypeError for anything else.
 *
 * @param {any} value @param {string} call @param {boolean} [several]
 */
export function input(value, call, several = false) {
  if (typeof value === "string" || Array.isArray(value) || ArrayBuffer.isView(value)) return value;
  throw new TypeError(`${call} takes a text or an array of token ids${several ? ", or several of them" : ""}, not ${shown(value)}`);
}

/**
 * Prompts that are generated together; a TypeError for one that is no text.
 *
 * @param {any[]} prompts
 */
export function texts(prompts) {
  const odd = prompts.findIndex((prompt) => typeof prompt !== "string");
  if (odd < 0) return prompts;
  throw new TypeError(`generate takes several prompts as texts, not as ${shown(prompts[odd])}: for prompts of token ids use stream`);
}
