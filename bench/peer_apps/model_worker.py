"""One implementation of the Perceiver in a process of its own; bench/models.py talks to it.

Reads one JSON request per line: {"call": "infer" or "train", "batch": B, "seconds": S}; answers
with the median seconds of a call and the process' peak memory. All have the configuration that our
constructor defaults to: 784 tokens, 6 cross-attentions of 4 heads, each with 4 self-attentions of
8 heads, 16 latents of 64.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

Infer = Callable[[Tensor], object]  # images (B, 1, 28, 28), normalised


def ours_module() -> nn.Module:
    from model.network.perceiver import Perceiver

    return Perceiver()


def perceiver_pytorch() -> nn.Module:
    from perceiver_pytorch import Perceiver

    class ChannelsLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.perceiver = Perceiver(
                input_channels=1,
                input_axis=2,
                num_freq_bands=4,
                max_freq=28.0,
                depth=6,
                num_latents=16,
                latent_dim=64,
                cross_heads=4,
                cross_dim_head=16,
                latent_heads=8,
                latent_dim_head=8,
                num_classes=10,
                self_per_cross_attn=4,
            )

        def forward(self, images: Tensor) -> Tensor:
            return self.perceiver(images.permute(0, 2, 3, 1))

    return ChannelsLast()


def perceiver_io() -> nn.Module:
    from perceiver.model.core import InputAdapter, PerceiverDecoder, PerceiverEncoder, PerceiverIO
    from perceiver.model.core.classifier import ClassificationOutputAdapter

    from model.network.perceiver import fourier_position_features, position_grid

    class Pixels(InputAdapter):
        def __init__(self) -> None:
            features = fourier_position_features(position_grid((28, 28)), (28, 28), 4)
            super().__init__(1 + features.shape[1])
            self.register_buffer("features", features[None])

        def forward(self, images: Tensor) -> Tensor:
            positions = self.features.expand(len(images), -1, -1)
            return torch.cat([images.flatten(2).transpose(1, 2), positions], dim=2)

    encoder = PerceiverEncoder(
        Pixels(),
        num_latents=16,
        num_latent_channels=64,
        num_cross_attention_heads=4,
        num_cross_attention_qk_channels=64,
        num_cross_attention_v_channels=64,
        num_cross_attention_layers=6,
        cross_attention_widening_factor=4,
        num_self_attention_heads=8,
        num_self_attention_layers_per_block=4,
        num_self_attention_blocks=6,
        first_self_attention_block_shared=False,
        self_attention_widening_factor=4,
    )
    output = ClassificationOutputAdapter(num_classes=10, num_output_query_channels=64)
    return PerceiverIO(encoder, PerceiverDecoder(output, num_latent_channels=64))


def hugging_face() -> nn.Module:
    from transformers import PerceiverConfig, PerceiverModel
    from transformers.models.perceiver.modeling_perceiver import (
        PerceiverClassificationDecoder,
        PerceiverImagePreprocessor,
    )

    config = PerceiverConfig(
        num_latents=16,
        d_latents=64,
        d_model=19,
        num_blocks=6,
        num_self_attends_per_block=4,
        num_self_attention_heads=8,
        num_cross_attention_heads=4,
        qk_channels=64,
        v_channels=64,
        self_attention_widening_factor=4,
        cross_attention_widening_factor=4,
        attention_probs_dropout_prob=0.0,
        num_labels=10,
    )

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.perceiver = PerceiverModel(
                config,
                input_preprocessor=PerceiverImagePreprocessor(
                    config,
                    prep_type="pixels",
                    spatial_downsample=1,
                    in_channels=1,
                    fourier_position_encoding_kwargs={
                        "num_bands": 4,
                        "max_resolution": (28, 28),
                        "concat_pos": True,
                        "sine_only": False,
                    },
                ),
                decoder=PerceiverClassificationDecoder(
                    config,
                    num_channels=64,
                    trainable_position_encoding_kwargs={"num_channels": 64, "index_dims": 1},
                    use_query_residual=True,
                ),
            )

        def forward(self, images: Tensor) -> Tensor:
            return self.perceiver(inputs=images).logits

    return Classifier()


def our_engine() -> Infer:
    """What the service runs: the exported graph in ONNX Runtime, from pixels."""
    import onnxruntime

    from model.modalities.digits.modality import SPEC
    from model.network.perceiver import Perceiver
    from model.network.recognizer import InputClassifier, NoveltyHead, Recognizer
    from model.training.export import export_onnx

    classifier = InputClassifier(Perceiver(), SPEC)
    graph = export_onnx(Recognizer(classifier, NoveltyHead(6, 64)).eval())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options)
    return lambda images: session.run(None, {SPEC.name: images})


MODULES = {
    "ours, eager": ours_module,
    "ours, compiled": ours_module,
    "perceiver-pytorch": perceiver_pytorch,
    "perceiver-io": perceiver_io,
    "Hugging Face": hugging_face,
}


def trainer(module: nn.Module, compiled: bool) -> Callable[[int], Callable[[], object]]:
    """A training step as each project's own: AdamW; ours compiled, with bfloat16 autocast."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), fused=compiled)
    forward = torch.compile(module) if compiled else module

    def of(batch: int) -> Callable[[], object]:
        images, labels = torch.randn(batch, 1, 28, 28), torch.randint(0, 10, (batch,))

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=compiled):
                loss = nn.functional.cross_entropy(forward(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    return of


def main() -> None:
    name = sys.argv[1]
    torch.manual_seed(0)
    step_of = None
    if name == "ours, engine":
        infer = our_engine()
    else:
        module = MODULES[name]()
        infer = torch.inference_mode()(module.eval())
    for line in sys.stdin:
        request = json.loads(line)
        torch.set_num_threads(request["threads"])
        batch = request["batch"]
        if request["call"] == "train":
            step_of = step_of or trainer(module, compiled=name == "ours, compiled")
            call = step_of(batch)
        elif name == "ours, engine":
            images = torch.randint(0, 256, (batch, 1, 28, 28), dtype=torch.uint8).numpy()
            call = lambda images=images: infer(images)  # noqa: E731
        else:
            images = torch.randn(batch, 1, 28, 28)
            call = lambda images=images: infer(images)  # noqa: E731
        call()
        times: list[float] = []
        end = time.perf_counter() + request["seconds"]
        while not times or time.perf_counter() < end:
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": statistics.median(times), "peak_mib": peak}), flush=True)


if __name__ == "__main__":
    main()
