// What the sampling settings leave of a token's alternatives: temperature, top-k, top-p and min-p, as shaders/sample.wgsl
// applies them. A pure function; nothing of the page.

/**
 * @typedef {object} Filters
 * @property {number} temperature 0: greedy
 * @property {number} topK 0: all
 * @property {number} topP
 * @property {number} minP
 *
 * @typedef {object} Filtered
 * @property {number[]} probabilities with which each alternative is drawn, 0 for one that is cut
 * @property {("" | "greedy" | "top-k" | "top-p" | "min-p")[]} cutBy what cuts each alternative first; "": it is kept
 * @property {boolean} about whether they depend on an estimate
 */

/**
 * Filters the most likely tokens of a place. A temperature changes the share of all other tokens, too, of which only sum and
 * entropy are known: from these follows the mean of their log-probabilities, and with it an estimate of that share. Where it
 * decides nothing the result is exact.
 * @param {number[]} logprobs of the most likely tokens by the model, in descending order
 * @param {number} entropy of all tokens, in nats
 * @param {Filters} filters
 * @returns {Filtered}
 */
export function filtered(logprobs, entropy, { temperature, topK, topP, minP }) {
  if (temperature === 0) {
    const cutBy = logprobs.map((_, i) => (i ? /** @type {const} */ ("greedy") : /** @type {const} */ ("")));
    return { probabilities: logprobs.map((_, i) => (i ? 0 : 1)), cutBy, about: false };
  }
  const weights = logprobs.map((logprob) => Math.exp((logprob - logprobs[0]) / temperature));
  const others = weightOfOthers(logprobs, entropy, temperature);
  const total = sum(weights) + others;
  let before = 0; // probability ranked before the token, not normalised again after top-k
  const cutBy = weights.map((weight, i) => {
    const by = topK && i >= topK ? "top-k" : before > topP ? "top-p" : weight < minP ? "min-p" : "";
    before += weight / total;
    return by;
  });
  const kept = weights.map((weight, i) => (cutBy[i] ? 0 : weight));
  // Others are less likely than all of these, so that a cut here cuts them, too. Else some may stay: as many as top-p has
  // room for. (None of those that min-p cuts, which are not known: their share is small.)
  const room = topP < 1 ? Math.max(0, topP - before) * total : others;
  const left = cutBy.at(-1) || topK === logprobs.length ? 0 : Math.min(others, room);
  const sumOfKept = sum(kept) + left;
  const estimated = others > 1e-3 * total && (left > 0 || (temperature !== 1 && topP < 1));
  return { probabilities: kept.map((weight) => weight / sumOfKept), cutBy, about: estimated };
}

/** Weight of all other tokens, by the largest one's. @param {number[]} logprobs @param {number} entropy @param {number} temperature */
function weightOfOthers(logprobs, entropy, temperature) {
  const rest = 1 - sum(logprobs.map(Math.exp));
  if (rest < 1e-6) return 0;
  const known = sum(logprobs.map((logprob) => -logprob * Math.exp(logprob)));
  const mean = Math.min(logprobs[logprobs.length - 1], (known - entropy) / rest);
  return rest * Math.exp((1 / temperature - 1) * mean - logprobs[0] / temperature);
}

/** @param {number[]} values */
const sum = (values) => values.reduce((total, value) => total + value, 0);
