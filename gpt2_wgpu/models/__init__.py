"""GPT-2 models, with the names of KerasHub's ``keras_hub.models``."""

from gpt2_wgpu.models import inspect
from gpt2_wgpu.models.activation_cache import ActivationCache
from gpt2_wgpu.models.batch_row import BatchRow
from gpt2_wgpu.models.batches import generate_batches, generate_batches_async
from gpt2_wgpu.models.causal_lm import CausalLM
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.continuous_batch import BatchStats, ContinuousBatch
from gpt2_wgpu.models.control import Cancellation
from gpt2_wgpu.models.conversion import convert, convert_async
from gpt2_wgpu.models.evaluation import Divergence
from gpt2_wgpu.models.generation_details import GenerationDetails
from gpt2_wgpu.models.generative_task import GenerativeTask
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.gpt2_causal_lm import GPT2CausalLM
from gpt2_wgpu.models.keras_file import load_model, load_model_async
from gpt2_wgpu.models.row_text import StreamStats
from gpt2_wgpu.models.saved_run import RunPart, SavedRun
from gpt2_wgpu.models.self_test import self_check, self_check_async
from gpt2_wgpu.models.session import Session
from gpt2_wgpu.models.text_stream import BatchStream, TextStream
from gpt2_wgpu.models.token_details import TokenDetails
from gpt2_wgpu.text import GPT2CausalLMPreprocessor, GPT2Tokenizer

__all__ = [
    "ActivationCache",
    "BatchRow",
    "BatchStats",
    "BatchStream",
    "Cancellation",
    "CausalLM",
    "ContinuousBatch",
    "Divergence",
    "GPT2Backbone",
    "GPT2CausalLM",
    "GPT2CausalLMPreprocessor",
    "GPT2Config",
    "GPT2Tokenizer",
    "GenerationDetails",
    "GenerativeTask",
    "RunPart",
    "SavedRun",
    "Session",
    "StreamStats",
    "TextStream",
    "TokenDetails",
    "convert",
    "convert_async",
    "generate_batches",
    "generate_batches_async",
    "inspect",
    "load_model",
    "load_model_async",
    "self_check",
    "self_check_async",
]
