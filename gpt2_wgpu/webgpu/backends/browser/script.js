// The half of the browser's backend that has to be JavaScript; the rest of this folder is the other.
//
// A call across the border costs more than what it does, so each does a whole job: its arguments
// are numbers, strings, bytes, flat lists and handles of WebGPU's objects. `submit` takes all
// commands of a submit at once, and a list that was bundled before crosses the border only once.
//
// Load this file as a script (worker: `import "./gpu.js"`) before Python needs it. Where a page
// allows `eval`, script.py otherwise does that itself. It runs in workers: no `window`, no DOM.
//
// Errors carry the name of the wgpu-py class that they become.

globalThis.gpt2WgpuBackend = (() => {
  "use strict";

  const FILTERS = ["validation", "out-of-memory", "internal"];
  const PIECE = 4 << 20; // bytes of a blob in this memory at a time
  const UNWAITED = 16 << 20; // bytes of blobs that may be written before the GPU is waited for
  const LOSS_MILLISECONDS = 100; // a map fails a little before its device is known to be lost
  const NUDGE_MILLISECONDS = 1; // browsers raise it to 4 after a few in a row
  const IS_FIREFOX = /\bFirefox\//.test(globalThis.navigator?.userAgent ?? "");
  const asked = new WeakMap(); // what adapters, modules and layouts were made from

  function failure(name, message) {
    const error = new Error(message);
    error.name = name;
    return error;
  }

  function named(error) {
    // wgpu's classes are called like WebGPU's. Every one of them has a message.
    const known = ["GPUOutOfMemoryError", "GPUInternalError", "GPUPipelineError"];
    const name = known.find((name) => error instanceof globalThis[name]);
    return failure(name ?? "GPUValidationError", error.message);
  }

  // What makes a pipeline another one: code, bindings, entry point and constants.
  function identity({ layout, compute: { module, entryPoint, constants } }) {
    return JSON.stringify([asked.get(module), asked.get(layout), entryPoint, constants]);
  }

  // A device, whether it is lost, and its first error since the last check.
  class Session {
    constructor(device, early = null) {
      this.device = device;
      this.early = early; // has pipelines of it that are being compiled
      this.queue = device.queue;
      this.loss = null;
      this.failed = null;
      this.unready = new Set(); // pipelines that are being compiled, or do not compile
      this.delayed = null; // a promise: operations of the queue that wait for pipelines
      this.waiting = 0; // calls in `settled`
      this.unwaited = 0; // bytes of blobs that the GPU may not have yet
      this.timer = null;
      this.lost = device.lost.then((info) => this.lose(info.reason, info.message));
      device.addEventListener("uncapturederror", (event) => {
        event.preventDefault(); // the next read reports it: the console need not as well
        this.failed ??= named(event.error);
      });
      this.open();
    }

    open() {
      for (const filter of FILTERS) this.device.pushErrorScope(filter);
    }

    lose(reason, message) {
      this.loss ??= { reason, message };
    }

    check() {
      if (this.loss === null) return;
      const { reason, message } = this.loss;
      throw failure("GPUError", `Parent device is lost (${reason}${message && `: ${message}`})`);
    }

    // Resolves when the device is lost, or so long after an error that it is not.
    patience() {
      const later = new Promise((resolve) => setTimeout(resolve, LOSS_MILLISECONDS));
      return Promise.race([this.lost, later]);
    }

    // The module of a shader; if it is invalid, the next read names it.
    shader(label, code) {
      this.check();
      this.device.pushErrorScope("validation");
      const module = this.device.createShaderModule({ label, code });
      if (this.early) asked.set(module, code);
      const note = (error) => {
        if (error) this.failed ??= failure("GPUPipelineError", `${label}: ${error.message}`);
      };
      this.device.popErrorScope().then(note, () => {});
      return module;
    }

    // A pipeline that the browser compiles beside other work: once `ready` has resolved, `made` is
    // WebGPU's object, or `error` says why there is none.
    compile(descriptor) {
      this.check();
      const pipeline = { made: null, error: null, ready: null };
      this.unready.add(pipeline);
      const succeed = (made) => {
        pipeline.made = made;
        this.unready.delete(pipeline);
      };
      const fail = async ({ message }) => {
        await this.patience();
        pipeline.error = failure("GPUPipelineError", `${descriptor.label}: ${message}`);
      };
      const compile = () => this.device.createComputePipelineAsync(descriptor);
      const begun = this.early?.pipeline(identity(descriptor), descriptor.label);
      pipeline.ready = (begun?.catch(compile) ?? compile()).then(succeed, fail);
      return pipeline;
    }

    // Does `work`, an operation of the queue: at once, or after those before it and when `pipelines`
    // are compiled. Returns what `work` returns, or a promise of it: of undefined where the device
    // was lost meanwhile, or `work` failed, which the next read reports.
    inOrder(work, pipelines = []) {
      const compiling = pipelines.filter(({ made, error }) => made === null && error === null);
      if (this.delayed === null && compiling.length === 0) return work();
      const before = Promise.all([this.delayed, ...compiling.map(({ ready }) => ready)]);
      const done = Promise.race([before, this.lost])
        .then(() => (this.loss === null ? work() : undefined))
        .catch((error) => void (this.failed ??= named(error)));
      const delayed = done.then(() => {
        if (this.delayed === delayed) this.delayed = null;
      });
      this.delayed = delayed;
      return done;
    }

    // Resolves to the first error of all calls so far, or null. Invalid objects make other calls
    // fail: what was noted comes before memory, and memory before validation.
    async errors() {
      const scopes = FILTERS.map(() => this.device.popErrorScope().catch(() => null));
      this.open();
      const error = (await Promise.all(scopes)).find((found) => found !== null);
      const failed = this.failed ?? (error ? named(error) : null);
      this.failed = null;
      return failed;
    }

    // Firefox looks for finished work every 100 ms, and with each submit: while something waits,
    // there are empty ones. Other browsers need none. Can go with Bugzilla 1870699.
    nudge() {
      if (!IS_FIREFOX) return;
      this.timer ??= setTimeout(() => {
        this.timer = null;
        if (this.waiting === 0 || this.loss !== null) return;
        this.queue.submit([]);
        this.nudge();
      }, NUDGE_MILLISECONDS);
    }

    // What the promise of `begin` gives, which is called in order; throws what the calls before,
    // compiling included, or it itself, did wrong.
    async settled(begin, pipelines = [...this.unready]) {
      this.waiting += 1;
      this.nudge();
      try {
        const start = () => {
          const outcome = begin().then((value) => ({ value }), (error) => ({ error }));
          return [this.errors(), outcome];
        };
        const begun = await this.inOrder(start, pipelines);
        const [earlier, { value, error }] = await Promise.all(begun ?? [this.errors(), {}]);
        if (error) await this.patience();
        this.check();
        if (earlier ?? error) throw earlier ?? (await this.errors()) ?? named(error);
        return value;
      } finally {
        this.waiting -= 1;
      }
    }
  }

  // The readers in use. In Chromium a pending read into given memory (BYOB) of a blob's stream never
  // settles if the collector takes its reader: nothing else refers to that.
  const reading = new Set();

  // Reads a blob into memory that it is given: through its stream, where that can do so.
  function readerOf(blob) {
    try {
      return blob.stream().getReader({ mode: "byob" });
    } catch {
      let at = 0;
      const read = async (view) => {
        const piece = await blob.slice(at, (at += view.byteLength)).arrayBuffer();
        view.set(new Uint8Array(piece));
        return { value: view.subarray(0, piece.byteLength) };
      };
      return { read, cancel: async () => {} };
    }
  }

  // An adapter or a device in words and numbers.
  function described(info, { features, limits }) {
    const numbers = {};
    for (const name in limits) if (Number.isFinite(limits[name])) numbers[name] = limits[name];
    const { vendor, architecture, device, description, isFallbackAdapter } = info;
    return JSON.stringify({
      info: { vendor, architecture, device, description, isFallbackAdapter },
      features: [...features],
      limits: numbers,
    });
  }

  function stage(label, layout, module, entryPoint, constants) {
    return { label, layout, compute: { module, entryPoint, constants: JSON.parse(constants) } };
  }

  function timed(querySet, beginningOfPassWriteIndex, endOfPassWriteIndex) {
    return { timestampWrites: { querySet, beginningOfPassWriteIndex, endOfPassWriteIndex } };
  }

  // `bundle`: pipeline, bind group, x, y, z of each dispatch. The inner loop of every token.
  function runBundle(pass, bundle, times) {
    let bound = null;
    for (let time = 0; time < times; time++) {
      for (let i = 0; i < bundle.length; i += 5) {
        const { made } = bundle[i];
        if (made !== bound) pass.setPipeline((bound = made));
        pass.setBindGroup(0, bundle[i + 1]);
        pass.dispatchWorkgroups(bundle[i + 2], bundle[i + 3], bundle[i + 4]);
      }
    }
  }

  // A command buffer of the list that Python has written.
  function encoded(device, commands) {
    const encoder = device.createCommandEncoder();
    let pass = null;
    let i = 0;
    const next = (count) => commands.slice(i, (i += count));
    const run = {
      pass: () => (pass = encoder.beginComputePass()),
      timed: () => (pass = encoder.beginComputePass(timed(...next(3)))),
      pipeline: () => pass.setPipeline(commands[i++].made),
      group: () => pass.setBindGroup(...next(2)),
      dispatch: () => pass.dispatchWorkgroups(...next(3)),
      bundle: () => runBundle(pass, ...next(2)),
      end: () => pass.end(),
      copy: () => encoder.copyBufferToBuffer(...next(5)),
      clear: () => encoder.clearBuffer(...next(3)),
      resolve: () => encoder.resolveQuerySet(...next(5)),
    };
    while (i < commands.length) run[commands[i++]]();
    return encoder.finish();
  }

  return {
    async requestAdapter(powerPreference, forceFallbackAdapter) {
      const gpu = globalThis.navigator?.gpu;
      if (!gpu) throw failure("RuntimeError", "navigator.gpu is not there");
      const adapter = await gpu.requestAdapter({
        powerPreference: powerPreference || undefined,
        forceFallbackAdapter,
      });
      if (!adapter) throw failure("RuntimeError", "navigator.gpu has no adapter");
      asked.set(adapter, powerPreference);
      return adapter;
    },

    // A worker may have opened such a device before, and compile for it: web/early-kernels.js.
    async requestDevice(adapter, label, features, limits) {
      const requiredLimits = JSON.parse(limits);
      const wanted = { label, requiredFeatures: features, requiredLimits };
      const early = (await globalThis.gpt2WgpuEarly)?.take(adapter, asked.get(adapter), wanted);
      try {
        return new Session(early?.device ?? (await adapter.requestDevice(wanted)), early);
      } catch (error) {
        throw failure("RuntimeError", error.message);
      }
    },

    describeAdapter: (adapter) => described(adapter.info, adapter),
    describeDevice: (session) => described({}, session.device),

    async lost(session) {
      const { reason, message } = await session.device.lost;
      return JSON.stringify([reason, message]);
    },

    destroy(session) {
      session.lose("destroyed", "");
      session.device.destroy();
    },

    createBuffer(session, label, size, usage) {
      session.check();
      return session.device.createBuffer({ label, size, usage });
    },

    // Of a buffer or a query set, after what uses it.
    destroyObject: (session, object) => void session.inOrder(() => object.destroy()),

    writeBuffer(session, buffer, offset, data) {
      session.check();
      const view = data.getBuffer("u8");
      try {
        const bytes = session.delayed === null ? view.data : view.data.slice();
        session.inOrder(() => session.queue.writeBuffer(buffer, offset, bytes));
      } finally {
        view.release();
      }
    },

    // Through one piece of memory, which goes to the reader and comes back: a new one for each
    // piece would pile up until the collector runs. Written data is in the browser's memory until
    // the GPU process has it: hence the waits, at which a tensor is reported that there was no room
    // for. A wait for each of many small tensors would take longer than their bytes do.
    async writeBlob(session, buffer, blob) {
      const reader = readerOf(blob);
      reading.add(reader);
      let staging = new ArrayBuffer(Math.min(PIECE, Math.ceil(blob.size / 4) * 4));
      try {
        for (let offset = 0, filled = 0; offset + filled < blob.size; ) {
          const { value } = await reader.read(new Uint8Array(staging, filled)).catch((error) => {
            throw failure("OSError", error.message);
          });
          if (!value?.byteLength) throw failure("OSError", "the file ended early");
          staging = value.buffer;
          filled += value.byteLength;
          if (filled < staging.byteLength && offset + filled < blob.size) continue;
          session.check();
          const size = Math.ceil(filled / 4) * 4;
          new Uint8Array(staging).fill(0, filled, size);
          const at = offset;
          await session.inOrder(() => session.queue.writeBuffer(buffer, at, staging, 0, size));
          [offset, filled] = [offset + filled, 0];
          session.unwaited += size;
          if (session.unwaited < UNWAITED) continue;
          session.unwaited = 0;
          await session.settled(() => session.queue.onSubmittedWorkDone(), []);
        }
      } finally {
        await reader.cancel().catch(() => {}); // of a file that failed there is nothing to cancel
        reading.delete(reader);
      }
    },

    map(session, buffer, mode, offset, size) {
      session.check();
      return session.settled(() => buffer.mapAsync(mode, offset, size));
    },

    readMapped(buffer, offset, size) {
      try {
        return new Uint8Array(buffer.getMappedRange(offset, size)).slice();
      } catch (error) {
        // It was mapped. Only a loss, which the session may not know of yet, unmaps it.
        throw failure("GPUError", `Parent device is lost (${error.message})`);
      }
    },

    createBindGroupLayout(session, label, entries) {
      session.check();
      const list = [];
      for (let i = 0; i < entries.length; i += 3) {
        const [binding, visibility, type] = entries.slice(i, i + 3);
        list.push({ binding, visibility, buffer: { type } });
      }
      const layout = session.device.createBindGroupLayout({ label, entries: list });
      asked.set(layout, list);
      return layout;
    },

    createBindGroup(session, label, layout, entries) {
      session.check();
      const list = [];
      for (let i = 0; i < entries.length; i += 4) {
        const [binding, buffer, offset, size] = entries.slice(i, i + 4);
        list.push({ binding, resource: { buffer, offset, size } });
      }
      return session.device.createBindGroup({ label, layout, entries: list });
    },

    createPipelineLayout(session, label, bindGroupLayouts) {
      session.check();
      const layout = session.device.createPipelineLayout({ label, bindGroupLayouts });
      asked.set(layout, bindGroupLayouts.map((each) => asked.get(each)));
      return layout;
    },

    createShaderModule: (session, label, code) => session.shader(label, code),

    // If it does not compile, the next read names its shader.
    createPipeline(session, ...rest) {
      const pipeline = session.compile(stage(...rest));
      pipeline.ready.then(() => (session.failed ??= pipeline.error));
      return pipeline;
    },

    async createPipelineAsync(session, ...rest) {
      const pipeline = session.compile(stage(...rest));
      await Promise.race([pipeline.ready, session.lost]);
      session.check();
      if (pipeline.error) throw pipeline.error;
      return pipeline;
    },

    createQuerySet(session, label, type, count) {
      session.check();
      return session.device.createQuerySet({ label, type, count });
    },

    // Waits for its own pipelines alone. With one that does not compile nothing is submitted.
    submit(session, commands) {
      session.check();
      const { unready } = session;
      const used = unready.size ? commands.flat().filter((each) => unready.has(each)) : [];
      session.inOrder(() => {
        const broken = used.find(({ error }) => error !== null);
        if (broken) session.failed ??= broken.error;
        else session.queue.submit([encoded(session.device, commands)]);
      }, used);
    },

    done: (session) => session.settled(() => session.queue.onSubmittedWorkDone()),
  };
})();
