/**
 * What every engine's page does. An engine's script exports
 *
 *   load(options, threads) → {name: version, ...}
 *   generate(work, count, emit)   emit(ids) as tokens come; the first call ends the prefill.
 *                                 An engine that reports later passes the seconds, too.
 *
 * The model's files are under /model/, the peers' packages under /npm/.
 */

/** @type {any} */
let engine;

/** Some kernels assume more lanes than a software adapter's four and compute wrongly there. */
function hideSubgroups() {
  const found = Object.getOwnPropertyDescriptor(GPUAdapter.prototype, "features");
  Object.defineProperty(GPUAdapter.prototype, "features", {
    get() {
      return new Set([...found.get.call(this)].filter((name) => !name.startsWith("subgroups")));
    },
  });
}

/** @param {string} file @param {{hideSubgroups?: boolean}} options @param {number} threads */
async function load(file, options, threads) {
  const adapter = await navigator.gpu?.requestAdapter();
  const { vendor = "", architecture = "", description = "" } = adapter?.info ?? {};
  const software = /swiftshader|llvmpipe/i.test(`${architecture} ${description}`) ? "software" : "";
  if (options.hideSubgroups) hideSubgroups();
  engine = await import(`./${file}.js`);
  const versions = await engine.load(options, threads);
  const named = description || `${vendor} ${architecture}`.trim();
  return { adapter: named || "an adapter that the browser does not name", software, ...versions };
}

/** @param {any} work @param {number} count → [seconds since the call, ids] of each emit */
async function run(work, count) {
  const marks = [];
  const begun = performance.now();
  const since = () => (performance.now() - begun) / 1000;
  await engine.generate(work, count, (ids, seconds = since()) => marks.push([seconds, ids]));
  return marks;
}

Object.assign(window, { loadEngine: load, runEngine: run });
