// The choice of a model, its exact size, and the button that loads, cancels, resumes or unloads.

import { models } from "../gpt2.js";
import { announceNow } from "./announcer.js";
import { button, element } from "./dom.js";
import { watchFolders } from "./folder.js";
import { counted, exactly, part, sentence, size } from "./format.js";
import { onPress } from "./press.js";
import { clearStages, stopStages } from "./stages.js";
import { showStored } from "./stored.js";

/**
 * @typedef {import("../gpt2.js").Source} Source
 * @typedef {import("../gpt2.js").Dtype} Dtype
 * @typedef {{source: Source, name: string, note: string, facts?: string, unasked?: boolean}} Candidate
 * `facts`: what is known of it once it was loaded, shown in place of `note` while it is.
 * `unasked`: a link named it, and the visitor has not agreed yet to contact its host.
 */

/** @type {Candidate} what index.html shows at first */
const EMBEDDED = {
  source: "fairytales",
  name: "fairytales",
  note: "7 million parameters, trained on fairy tales",
};

export class Chooser {
  #loader;
  #onLoaded;
  #candidate = { ...EMBEDDED };
  /** @type {Candidate | null} what was loaded last; writing as long as the loader is ready */
  #loaded = null;
  /** @type {{bytes: number, files: {name: string}[], cached: boolean} | null} */
  #size = null;
  /** bytes of a download that ended early @type {{bytes: number, total: number} | null} */
  #unfinished = null;
  #capable = false;

  #name = element("candidate-name", HTMLElement);
  #note = element("candidate-note", HTMLElement);
  #sizeLine = element("candidate-size", HTMLElement);
  #button = element("load", HTMLButtonElement);
  #dtype = element("dtype", HTMLSelectElement);
  #message = element("model-message", HTMLElement);
  #offered = element("offered", HTMLElement);
  #remote = element("remote-source", HTMLInputElement);
  #missing = element("remote-missing", HTMLElement);

  /**
   * @param {import("./loading.js").Loader} loader
   * @param {(lm: import("../gpt2.js").GPT2) => void} onLoaded
   */
  constructor(loader, onLoaded) {
    this.#loader = loader;
    this.#onLoaded = onLoaded;
    onPress(this.#button, () => void this.#press());
    element("remote", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      this.chooseRemote(this.#remote.value.trim());
    });
    this.#remote.addEventListener("input", () => (this.#missing.hidden = true));
    watchFolders((name, files) =>
      this.#choose({ source: files, name, note: "From a folder. Read directly from your disk; nothing is uploaded." }),
    );
  }

  /** A Hugging Face id or a URL; nothing is fetched but the list of files. @param {string} source */
  chooseRemote(source) {
    if (source === EMBEDDED.source) return this.#choose(EMBEDDED);
    this.#missing.hidden = source !== "";
    if (!source) return this.#remote.focus();
    this.#remote.value = source;
    const from = /:\/\/|^[./]|\/$/.test(source) && !source.startsWith("hf://") ? "From a URL" : "From Hugging Face";
    return this.#choose({ source, name: source, note: from });
  }

  /** What a link names: its host learns nothing before the visitor presses Check size. @param {string} source */
  propose(source) {
    if (source === EMBEDDED.source) return this.#choose(EMBEDDED);
    this.#remote.value = source;
    this.#choose({ source, name: source, note: "From the shared link", unasked: true });
  }

  /** The dtype a link names; one that is not offered changes nothing. @param {string} dtype */
  proposeDtype(dtype) {
    if ([...this.#dtype.options].some(({ value }) => value === dtype)) this.#dtype.value = dtype;
  }

  /**
   * What a link says of the model that writes (of the candidate, where none does): its id or URL,
   * null for the embedded one and for a `folder`, which no link can carry; and the weights' dtype.
   */
  get shareable() {
    const { source } = this.#writing ?? this.#candidate;
    const folder = typeof source !== "string";
    const dtype = this.#loader.lm?.info.dtype ?? this.#dtype.value;
    return { model: folder || source === EMBEDDED.source ? null : source, dtype, folder };
  }

  /** The candidate that is loaded now. */
  get #writing() {
    return this.#loader.state === "ready" ? this.#loaded : null;
  }

  /** Enables loading, once the check for WebGPU has passed. */
  async open() {
    this.#capable = true;
    const parts = [this.#measure(), this.#showStored(), this.#showOffered()];
    for (const done of await Promise.allSettled(parts)) {
      if (done.status === "rejected") this.complain(done.reason);
    }
  }

  /** Buttons for the models that are published with the page. */
  async #showOffered() {
    const offered = await models.offered();
    const buttons = offered.map(({ source, name }) =>
      button(name, () => {
        const own = source === EMBEDDED.source;
        this.#choose(own ? EMBEDDED : { source, name, note: "Included with this site" });
      }),
    );
    this.#offered.replaceChildren("Included with this site:", ...buttons);
  }

  /** Updates the button; called when the loader's state changes. */
  draw() {
    const { state } = this.#loader;
    const loaded = this.#writing?.source === this.#candidate.source;
    const idle = loaded ? "Unload" : this.#invitation();
    this.#button.textContent = state === "loading" ? "Cancel" : idle;
    const possible = state === "loading" || loaded || this.#size || this.#candidate.unasked;
    this.#button.disabled = !this.#capable || !possible;
    this.#note.textContent = (loaded && this.#writing?.facts) || this.#candidate.note;
    this.#button.classList.toggle("primary", state !== "loading" && !loaded);
    this.#dtype.disabled = state === "loading" || loaded;
    this.#offered.hidden = state === "loading";
  }

  #invitation() {
    if (this.#candidate.unasked) return "Check size";
    if (this.#unfinished) return `Resume · ${part(this.#unfinished.bytes, this.#unfinished.total)}`;
    if (!this.#size) return "Load";
    const { bytes, cached } = this.#size;
    return cached ? `Load · ${size(bytes)}, stored` : `Load · ${size(bytes)}`;
  }

  /** @param {Candidate} candidate */
  #choose(candidate) {
    if (this.#loader.state === "loading") {
      this.#show("A model is loading. Cancel it first.");
      return;
    }
    this.#candidate = { ...candidate };
    this.#name.textContent = candidate.name;
    this.#note.textContent = candidate.note;
    this.#show("");
    clearStages();
    this.#size = null;
    this.#unfinished = null;
    if (this.#capable) void this.#measure();
  }

  /** Fetches the exact size of the candidate, and nothing else. */
  async #measure() {
    const candidate = this.#candidate;
    if (candidate.unasked) {
      this.#sizeLine.textContent = "Size unknown. Press Check size.";
      return this.draw();
    }
    this.#sizeLine.textContent = "Checking the size…";
    this.draw();
    try {
      const found = await models.size(candidate.source);
      if (candidate !== this.#candidate) return; // another one was chosen meanwhile
      this.#size = found;
      const where = found.cached ? ", stored on this device" : "";
      this.#sizeLine.textContent =
        `${exactly(found.bytes)} in ${counted(found.files.length, "file")}${where}`;
      await this.#recall();
    } catch (error) {
      if (candidate !== this.#candidate) return;
      this.#sizeLine.textContent = "\u00a0";
      const writing = this.#writing;
      if (writing && writing.source !== candidate.source) this.#choose(writing); // Unload is there
      this.complain(error);
    }
    this.draw();
  }

  /** Remembers how far an earlier visit came with this model's download. */
  async #recall() {
    const { source } = this.#candidate;
    const rows = await models.list();
    const row = rows.find(({ id }) => typeof source === "string" && plain(id) === plain(source));
    const cut = row !== undefined && !row.complete && row.bytes > 0;
    this.#unfinished = cut ? { bytes: row.bytes, total: row.total } : null;
  }

  async #press() {
    if (this.#loader.state === "loading") return this.#loader.cancel();
    if (this.#writing?.source === this.#candidate.source) return this.#unload();
    const { source, unasked } = this.#candidate;
    if (unasked) return this.chooseRemote(String(source));
    await this.#load();
  }

  /** Unloads; what was said of the model goes with it. */
  #unload() {
    this.#show("");
    clearStages();
    return this.#loader.unload();
  }

  async #load() {
    const candidate = this.#candidate;
    const { source, name } = candidate;
    this.#show("");
    clearStages();
    try {
      const lm = await this.#loader.load(source, /** @type {Dtype | ""} */ (this.#dtype.value));
      if (lm) {
        this.#loaded = candidate;
        this.#unfinished = null;
        if (this.#size) this.#size.cached = typeof source === "string";
        announceNow(`${name} is loaded.`);
        this.#show(lm.info.warnings.map(forThePage).join(" "));
        candidate.facts = describe(lm.info);
        this.#onLoaded(lm);
      } else {
        stopStages();
        this.#show("Cancelled. The part that was downloaded is kept.");
        await this.#recall();
      }
    } catch (error) {
      stopStages();
      this.complain(error);
      await this.#recall();
    }
    this.draw();
    await this.#showStored();
  }

  #showStored() {
    /** @param {import("../gpt2.js").StoredModel} model */
    const use = ({ id, name }) =>
      id === EMBEDDED.source
        ? this.#choose(EMBEDDED)
        : this.#choose({ source: id, name, note: "Stored on this device" });
    return showStored(use, () => void this.#measure());
  }

  /** Shows an error of the model. @param {unknown} error */
  complain(error) {
    this.#show(sentence(error instanceof Error ? error.message : String(error)), true);
    this.#message.scrollIntoView({ block: "nearest" });
  }

  /** @param {string} text @param {boolean} [bad] */
  #show(text, bad = false) {
    this.#message.textContent = text;
    this.#message.classList.toggle("bad", bad);
  }
}

/** @param {import("../gpt2.js").Info} info */
function describe({ parameters, contextLength, dtype }) {
  return `${(parameters / 1e6).toFixed(1)} million parameters, context ${contextLength}, ${dtype}`;
}

/** A warning of the library, with this page's control in place of the argument. @param {string} warning */
function forThePage(warning) {
  return sentence(warning.replace('pass dtype="float16" to override', "unload the model to choose another weight format"));
}

/** A source as visitors write it: what is stored has its whole address. @param {string} source */
function plain(source) {
  return source.replace(/^hf:\/\//, "").replace(/\/+$/, "");
}
