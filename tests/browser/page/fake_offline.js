// Served in place of web/offline.js: says what the test wants it to say.

export const offline = { enable: async () => globalThis.fake?.offline ?? true };
