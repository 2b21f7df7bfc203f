/**
 * The service worker: stores one version of the site for offline use. It is served from the site's
 * root, which is its scope.
 *
 * `?version=` is the SHA-256 of manifest.json, which lists the SHA-256 of every file. A version is
 * installed complete and verified, or not at all, and pages of one version never get files of
 * another: a new version takes over when the last page of the old one is closed. Models are stored
 * elsewhere (storage.js).
 */

const worker = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (self));
const ROOT = new URL("./", worker.location.href);
const NAME = "gpt2-wgpu site ";
const VERSION = new URL(worker.location.href).searchParams.get("version") ?? "";
const AT_ONCE = 4; // requests
const KEPT = ["Content-Type", "Content-Security-Policy"]; // a worker's policy is that of its script

worker.addEventListener("install", (event) => event.waitUntil(install()));
worker.addEventListener("activate", (event) => event.waitUntil(activate()));
worker.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  const ours = request.method === "GET" && url.href.startsWith(ROOT.href);
  // Uncached requests go to the network: checks for a newer version, and parts of models.
  if (!ours || request.headers.has("Range") || isModel(url)) return;
  event.respondWith(answer(request, url));
});

/** @param {ArrayBuffer} data */
async function sha256(data) {
  const digest = await crypto.subtle.digest("SHA-256", data);
  return [...new Uint8Array(digest)].map((x) => x.toString(16).padStart(2, "0")).join("");
}

/** @param {URL} url */
const isModel = (url) => url.pathname.startsWith(new URL("models/", ROOT).pathname);

/** A file of the site, if it is what this version says. @param {string} path @param {string} hash */
async function proven(path, hash) {
  const url = new URL(path, ROOT).href;
  // A host that compares dates only may call a changed file unchanged (same second, or a build that
  // gives all files one date). So a file with a wrong hash is fetched once more without the cache.
  const file = (await asked(url, hash, "no-cache")) ?? (await asked(url, hash, "reload"));
  if (!file) throw new Error(`${path} is not of version ${VERSION}`);
  /** @type {Record<string, string>} */
  const headers = {};
  for (const name of KEPT) {
    const value = file.response.headers.get(name);
    if (value) headers[name] = value;
  }
  return { url, data: file.data, response: new Response(file.data, { headers }) };
}

/** @param {string} url @param {string} hash @param {RequestCache} cache */
async function asked(url, hash, cache) {
  const response = await fetch(url, { cache });
  if (!response.ok) throw new Error(`${url}: status ${response.status}`);
  const data = await response.arrayBuffer();
  return (await sha256(data)) === hash ? { response, data } : null;
}

async function install() {
  const cache = await caches.open(NAME + VERSION);
  // Browsers fetch this script again by its old address when the host has a newer version: that
  // install fails here, and the old version stays in use. (Its manifest came last.)
  const whole = await cache.match(new URL("manifest.json", ROOT).href);
  try {
    const { url, data, response } = await proven("manifest.json", VERSION);
    /** @type {Record<string, {sha256?: string}>} */
    const manifest = JSON.parse(new TextDecoder().decode(data));
    const paths = Object.keys(manifest).filter((path) => !isModel(new URL(path, ROOT)));
    const keepSome = async () => {
      for (let path = paths.pop(); path !== undefined; path = paths.pop()) {
        const file = await proven(path, manifest[path].sha256 ?? "");
        await cache.put(file.url, file.response);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, keepSome));
    await cache.put(url, response);
  } catch (error) {
    if (!whole) await caches.delete(NAME + VERSION);
    throw error;
  }
}

async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith(NAME) && name !== NAME + VERSION) await caches.delete(name);
  }
}

/** @param {Request} request @param {URL} url */
async function answer(request, url) {
  url.search = url.hash = "";
  if (url.href === ROOT.href) url.pathname += "index.html";
  const fresh = request.cache === "no-store";
  if (fresh) {
    const response = await fetch(request).catch(() => null);
    if (response) return response;
  }
  const cache = await caches.open(NAME + VERSION);
  return (await cache.match(url.href)) ?? fetch(request);
}
