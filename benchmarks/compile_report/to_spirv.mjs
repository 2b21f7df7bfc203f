// Reads a JSON list of {"code", "constants"} from stdin, compiles each WGSL with Tint (Dawn, npm
// `webgpu`), and writes what Dawn dumps, the SPIR-V assembly among it, to stdout. A line
// "=== <index>" comes before each. Needs a Vulkan driver that Dawn accepts: Chromium's SwiftShader.
import { readFileSync, writeSync } from 'fs';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);
const features = 'allow_unsafe_apis,dump_shaders,disable_robustness';
const gpu = create(['backend=vulkan', 'adapter=SwiftShader', `enable-dawn-features=${features}`]);
const adapter = await gpu.requestAdapter();
const names = ['maxStorageBuffersPerShaderStage', 'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupSizeX'];
const requiredLimits = Object.fromEntries(names.map((name) => [name, adapter.limits[name]]));
const device = await adapter.requestDevice({ requiredLimits });
const kernels = JSON.parse(readFileSync(0, 'utf8'));
for (const [index, { code, constants }] of kernels.entries()) {
  writeSync(1, `\n=== ${index}\n`);
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  device.createComputePipeline({
    layout: 'auto', compute: { module, entryPoint: 'main', constants },
  });
  const error = await device.popErrorScope();
  if (error) writeSync(1, `\n=== error ${error.message}\n`);
}
process.exit(0);
