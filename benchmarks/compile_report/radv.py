"""Compiles SPIR-V compute shaders with Mesa's RADV for an AMD GPU that need not be there.

RADV_FORCE_FAMILY=navi21 makes RADV offer "Null hardware", which compiles and runs nothing;
RADV_DEBUG=shaders,shaderstats makes it print statistics and machine code. Reads a JSON list of
{"path", "entry", "bindings"} from stdin and writes the list of what RADV printed to stdout. Each
shader has a process of its own, since the null device crashes now and then. Needs PyPI `vulkan`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import vulkan as vk

TRIES = 4


def compile_shader(path: str, entry: str, bindings: dict[str, str]) -> None:
    """Compile one shader; ``bindings``: index → "storage" or "uniform"."""
    application = vk.VkApplicationInfo(
        pApplicationName="compile_report", apiVersion=vk.VK_MAKE_VERSION(1, 3, 0)
    )
    instance = vk.vkCreateInstance(vk.VkInstanceCreateInfo(pApplicationInfo=application), None)
    gpu = next(
        one
        for one in vk.vkEnumeratePhysicalDevices(instance)
        if "Null" in vk.vkGetPhysicalDeviceProperties(one).deviceName
    )
    model = vk.VkPhysicalDeviceVulkanMemoryModelFeatures(
        vulkanMemoryModel=1, vulkanMemoryModelDeviceScope=1
    )
    queue = vk.VkDeviceQueueCreateInfo(queueFamilyIndex=0, pQueuePriorities=[1.0])
    device = vk.vkCreateDevice(
        gpu, vk.VkDeviceCreateInfo(pNext=model, pQueueCreateInfos=[queue]), None
    )
    code = Path(path).read_bytes()
    module = vk.vkCreateShaderModule(
        device, vk.VkShaderModuleCreateInfo(codeSize=len(code), pCode=code), None
    )
    kinds = {
        "uniform": vk.VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,
        "storage": vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
    }
    slots = [
        vk.VkDescriptorSetLayoutBinding(
            binding=int(index),
            descriptorType=kinds[kind],
            descriptorCount=1,
            stageFlags=vk.VK_SHADER_STAGE_COMPUTE_BIT,
        )
        for index, kind in bindings.items()
    ]
    group = vk.vkCreateDescriptorSetLayout(
        device, vk.VkDescriptorSetLayoutCreateInfo(pBindings=slots), None
    )
    layout = vk.vkCreatePipelineLayout(
        device, vk.VkPipelineLayoutCreateInfo(pSetLayouts=[group]), None
    )
    stage = vk.VkPipelineShaderStageCreateInfo(
        stage=vk.VK_SHADER_STAGE_COMPUTE_BIT, module=module, pName=entry
    )
    info = vk.VkComputePipelineCreateInfo(stage=stage, layout=layout)
    vk.vkCreateComputePipelines(device, None, 1, [info], None)


def printed(shader: dict[str, Any]) -> str:
    """Return what RADV prints while it compiles ``shader``; "" if it crashes each time."""
    for _ in range(TRIES):
        with tempfile.TemporaryFile() as file:
            child = os.fork()
            if not child:
                try:
                    os.dup2(file.fileno(), 2)
                    compile_shader(**shader)
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            file.seek(0)
            text = file.read().decode(errors="replace")
        if "SHADER STATS" in text:
            return text
    return ""


if __name__ == "__main__":
    json.dump([printed(shader) for shader in json.load(sys.stdin)], sys.stdout)
