import { Caller } from "../web/rpc.js";

globalThis.worker = new Caller(new Worker("downloads-worker.js", { type: "module" }));

// What a call gives or throws, as data; it is stopped once `bytes` of progress have come.
globalThis.attempt = async (method, args, bytes = Infinity) => {
  const controller = new AbortController();
  const progress = [];
  const onEvent = (event) => {
    progress.push(event);
    if (event.bytes >= bytes) controller.abort();
  };
  try {
    const value = await worker.call(method, args, { signal: controller.signal, onEvent });
    return { value, progress };
  } catch ({ name, message }) {
    return { error: { name, message }, progress };
  }
};
