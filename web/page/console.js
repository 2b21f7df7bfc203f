// A Python prompt on the model's worker.

import { element, make } from "./dom.js";
import { indentAfter, wantsMore } from "./open-block.js";
import { onPress } from "./press.js";
import { Recall } from "./recall.js";

const toggle = element("console-toggle", HTMLButtonElement);
const body = element("console-body", HTMLElement);
const log = element("console-log", HTMLElement);
const input = element("code", HTMLTextAreaElement);
const runButton = element("run", HTMLButtonElement);

const STOP_TIMEOUT_MS = 2000; // until a stop without effect is explained
const ENDLESS =
  "Still running: this code never waits. Only Unload can end it; Load then restarts Python.";

export class PythonConsole {
  /** @type {import("../gpt2.js").GPT2 | null} */
  #lm = null;
  /** @type {AbortController | null} the current run */
  #controller = null;
  #recall = new Recall();
  #onRun;
  #examples = element("examples", HTMLElement).querySelectorAll("button");

  /** @param {() => void} onRun called after each run */
  constructor(onRun) {
    this.#onRun = onRun;
    for (const each of this.#examples) each.addEventListener("click", () => void this.#run(each.value));
    toggle.addEventListener("click", () => this.#open(body.hidden === true));
    onPress(runButton, () => void (this.#controller ? this.#stop() : this.#run(input.value)));
    addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#stop();
    });
    input.addEventListener("input", fit);
    input.addEventListener("keydown", (event) => this.#key(event));
    this.use(null);
  }

  /** Runs code beside `lm` from now on. @param {import("../gpt2.js").GPT2 | null} lm */
  use(lm) {
    this.#lm = lm;
    input.placeholder = lm ? "gw.memory()" : "Load a model first";
    this.#draw();
  }

  /** @param {boolean} open */
  #open(open) {
    body.hidden = !open;
    toggle.setAttribute("aria-expanded", String(open));
    toggle.textContent = open ? "Close Python console" : "Open Python console";
    if (open) input.focus();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") {
      event.preventDefault();
      if (event.shiftKey || wantsMore(input.value)) insert(`\n${indentAfter(beforeCaret())}`);
      else if (!event.repeat) void this.#run(input.value);
    } else if (event.key === "ArrowUp" && !beforeCaret().includes("\n")) {
      this.#show(event, this.#recall.move(-1, input.value));
    } else if (event.key === "ArrowDown" && !afterCaret().includes("\n")) {
      this.#show(event, this.#recall.move(1, input.value));
    }
  }

  /** @param {Event} event @param {string | null} entry */
  #show(event, entry) {
    if (entry === null) return;
    event.preventDefault();
    input.value = entry;
    fit();
  }

  /** @param {string} typed */
  async #run(typed) {
    const code = typed.trimEnd();
    if (!code) return;
    if (!this.#lm) return print("error", "There is no model yet: press Load above.");
    if (this.#controller) return print("error", "The code before is still running: press Stop, or wait.");
    const controller = new AbortController();
    this.#controller = controller;
    this.#draw();
    this.#recall.add(code);
    if (input.value === typed) input.value = "";
    fit();
    print("code", code.replace(/^/gm, "... ").replace("...", ">>>"));
    try {
      const { output, result } = await this.#lm.python(code, { signal: controller.signal });
      if (output) print("output", output.replace(/\n$/, ""));
      if (result !== null && result !== undefined) print("result", String(result));
    } catch (error) {
      if (controller.signal.aborted) print("output", "Stopped.");
      else print("error", error instanceof Error ? error.message.trimEnd() : String(error));
    }
    this.#controller = null;
    this.#draw();
    this.#onRun();
  }

  /** Stops the current run at its next await; code that never awaits cannot be stopped. */
  #stop() {
    const controller = this.#controller;
    if (!controller || controller.signal.aborted) return;
    controller.abort();
    this.#draw();
    setTimeout(() => {
      if (this.#controller === controller) print("error", ENDLESS);
    }, STOP_TIMEOUT_MS);
  }

  #draw() {
    const running = this.#controller !== null;
    runButton.textContent = running ? "Stop" : "Run";
    runButton.disabled = !this.#lm || this.#controller?.signal.aborted === true;
    for (const each of this.#examples) each.disabled = !this.#lm || running;
    log.setAttribute("aria-busy", String(running));
  }
}

/** @param {string} kind @param {string} text */
function print(kind, text) {
  log.append(make("pre", kind, text));
  log.scrollTop = log.scrollHeight;
}

/** The prompt is as tall as its code, up to a dozen lines. */
function fit() {
  input.rows = Math.min(12, input.value.split("\n").length);
}

function beforeCaret() {
  return input.value.slice(0, input.selectionStart);
}

function afterCaret() {
  return input.value.slice(input.selectionEnd);
}

/** Types `text` at the caret. @param {string} text */
function insert(text) {
  input.setRangeText(text, input.selectionStart, input.selectionEnd, "end");
  fit();
}
