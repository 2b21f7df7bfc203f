// The run that the page shows before a model is loaded, recorded by scripts/record_run.py: the text of
// index.html, with what `GPT2` gives for it.

/** @typedef {import("../gpt2.js").Inspection} Inspection */
/** @typedef {import("../gpt2.js").InspectOptions} InspectOptions */

/** Resolves to the recorded run, null where it cannot be read. */
export async function fetchRecording() {
  try {
    const response = await fetch(new URL("recorded-run.json", import.meta.url));
    return response.ok ? new Recording(await response.json()) : null;
  } catch {
    return null; // offline, or cut short
  }
}

/** What the inspector asks of a model, answered from the record: it has one text. */
export class Recording {
  #run;
  tokenizer = { encode: async () => /** @type {number[]} */ (this.#run.odds.ids) };

  /** @param {any} run */
  constructor(run) {
    this.#run = run;
  }

  get name() {
    const { model, dtype, seed, adapter } = this.#run;
    return `${model}, ${dtype}, seed ${seed}, on ${adapter}`;
  }

  /** Prompt and continuation. @returns {string} */
  get text() {
    return this.#run.prompt + this.#run.text;
  }

  /** As of a stream of this text. @returns {import("./inspector/odds.js").Token[]} */
  get tokens() {
    const { odds, pieces } = this.#run;
    const { ids, logprobs, ranks, entropies, topIds, topLogprobs } = odds;
    return ids.map((/** @type {number} */ id, /** @type {number} */ i) => {
      const top = topIds[i].map((/** @type {number} */ id, /** @type {number} */ k) => ({ id, piece: pieces[id], logprob: topLogprobs[i][k] }));
      return { id, text: odds.pieces[i], logprob: logprobs[i], rank: ranks[i], entropy: entropies[i], top };
    });
  }

  /** As of a model, of all of the text. @param {string} _ @param {InspectOptions} options @returns {Promise<Inspection>} */
  async inspect(_, { attention }) {
    const { texts, pieces, attention: recorded, lens, time } = this.#run;
    const layer = Number(attention);
    const patterns = expanded(recorded.patterns[layer], recorded.heads, recorded.length);
    return {
      texts,
      pieces,
      ids: new Uint32Array(),
      offsets: new Uint32Array(),
      attention: { layers: Uint32Array.of(layer), heads: recorded.heads, length: recorded.length, patterns },
      lens,
      time: { ...time, seconds: time.seconds && Float32Array.from(time.seconds), bytes: Float32Array.from(time.bytes) },
    };
  }
}

/** Weights [head, query, key] of the bytes of their lower triangles. @param {string} encoded @param {number} heads @param {number} length */
function expanded(encoded, heads, length) {
  const levels = atob(encoded);
  const weights = new Float32Array(heads * length * length);
  let at = 0;
  for (let row = 0; row < heads * length; row++) {
    for (let key = 0; key <= row % length; key++) weights[row * length + key] = (levels.charCodeAt(at++) / 255) ** 2;
  }
  return weights;
}
