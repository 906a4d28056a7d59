"""The last part of Kokoro in PyTorch, which takes nine tenths of its time: features at 80 Hz -> sound (iSTFTNet, arXiv 2203.02395).

The published ONNX file holds its convolutions as int8 products. On one thread of an Intel Xeon with AMX, per second of speech, this takes
0.16 s in bfloat16 and 0.45 in float32 (for CPUs without bfloat16 products); ONNX Runtime takes 0.58 for the same part.

T features, S = 60 T + 1 steps of the source, of one sentence.
"""

import numpy as np
import onnx
import onnx.utils
import onnxruntime
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

PART = "/decoder/decoder/generator/"
FEATURES, SOURCE, STYLE = "/decoder/decoder/decode.3/Div_4_output_0", PART + "Concat_3_output_0", "/decoder/Slice_output_0"
WEIGHTS = "decoder.decoder.generator."  # as their names begin
FFT, HOP = 20, 5
BLOCKS = 3  # residual blocks of different widths, side by side at each rate


def front(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """What comes before: (tokens, style, speed) -> what `Generator` is given, on one thread."""
    part = onnx.utils.Extractor(model).extract_model(["tokens", "style", "speed"], [FEATURES, SOURCE, STYLE])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Generator:
    """The weights of the published `model`, unpacked."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._arrays = {array.name: array for array in model.graph.initializer}
        fast = torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()
        self.dtype = torch.bfloat16 if fast else torch.float32
        self.convolutions = {}  # weight, bias, stride, padding, dilation
        for node in model.graph.node:
            if not node.name.startswith(PART):
                continue
            name = node.name.removeprefix(PART).removesuffix("/Conv_quant").removesuffix("/ConvTranspose").removesuffix("/Conv")
            given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type in ("ConvInteger", "Conv", "ConvTranspose") and "istft" not in name:
                weight = self._unpacked(*node.input[1:4:2]) if node.op_type == "ConvInteger" else self._array(node.input[1])
                bias = self._array(WEIGHTS + name.replace("/", ".") + ".bias")
                stride, padding, dilation = (1, given["strides"][0]), (0, given["pads"][0]), (1, given["dilations"][0])
                self.convolutions[name] = self._image(weight), bias.to(self.dtype), stride, padding, dilation
        self.norms, self.alphas = {}, {}
        for name in self._arrays:
            if name.startswith(WEIGHTS) and name.endswith(".fc.bias"):
                key = name.removeprefix(WEIGHTS).removesuffix(".fc.bias")
                stem = name.removesuffix("bias") + "weight_"  # [inputs, outputs], a scale for each output
                self.norms[key] = self._array(stem + "quantized") * self._array(stem + "scale"), self._array(name)
            elif ".alpha" in name:
                self.alphas[name.removeprefix(WEIGHTS)] = self._array(name).reshape(1, -1, 1, 1)
        del self._arrays

    def _image(self, x: Tensor) -> Tensor:
        """[A, C, T] -> [A, C, 1, T], channels last in memory: only so the fast kernels are chosen."""
        return x[:, :, None].to(self.dtype).contiguous(memory_format=torch.channels_last)

    def _array(self, name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(self._arrays[name]).astype(np.float32))

    def _unpacked(self, packed: str, zero: str) -> Tensor:
        """The weight of a convolution from its int8 form, [outputs, ...]."""
        scale = self._array(packed.removesuffix("quantized") + "scale")
        return (self._array(packed) - self._array(zero)) * scale

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.convolutions[name])

    def _restyled(self, name: str, alpha: Tensor, x: Tensor, style: Tensor) -> Tensor:
        """Mean and deviation of each channel as the voice has them, then snake: y + sin^2(alpha y) / alpha."""
        weight, bias = self.norms[name]
        gain, shift = (style @ weight + bias).reshape(2, 1, -1, 1, 1)
        rows = x[0, :, 0].T.float()  # as they lie in memory: `var_mean` over a strided dimension takes five times as long
        mean = rows.mean(0)
        variance = rows.square().mean(0) - mean.square()
        mean, variance = (part.reshape(1, -1, 1, 1) for part in (mean, variance))
        gain = (1 + gain) * (variance.clamp(min=0) + 1e-5).rsqrt()
        shift = shift - mean * gain
        y = torch.addcmul(shift.to(x.dtype), x, gain.to(x.dtype))
        return torch.addcmul(y, (y * alpha.to(x.dtype)).sin_().square_(), (1 / alpha).to(x.dtype))

    def _block(self, name: str, x: Tensor, style: Tensor) -> Tensor:
        for i in range(3):
            y = x
            for half in ("1", "2"):
                y = self._restyled(f"{name}.adain{half}.{i}", self.alphas[f"{name}.alpha{half}.{i}"], y, style)
                y = self._convolve(f"{name}/convs{half}.{i}", y)
            x = x + y
        return x

    @torch.inference_mode()
    def __call__(self, features: np.ndarray, source: np.ndarray, style: np.ndarray) -> np.ndarray:
        """Features [1, 512, T], the source's spectrum [1, 22, S], the voice [1, 128] -> sound [N]."""
        x, source = (self._image(torch.from_numpy(part)) for part in (features, source))
        style = torch.from_numpy(style)
        for rate in (0, 1):
            weight, bias, stride, padding, _ = self.convolutions[f"ups.{rate}"]
            x = F.conv_transpose2d(F.leaky_relu(x, 0.1), weight, bias, stride, padding)
            if rate == 1:
                x = torch.cat([x[..., 1:2], x], 3)  # reflected
            x = x + self._block(f"noise_res.{rate}", self._convolve(f"noise_convs.{rate}", source), style)
            x = sum(self._block(f"resblocks.{BLOCKS * rate + i}", x, style) for i in range(BLOCKS)) / BLOCKS
        x = self._convolve("conv_post", F.leaky_relu(x, 0.01))[0, :, 0].float()
        size, phase = x[: FFT // 2 + 1].exp(), x[FFT // 2 + 1 :].sin()
        return torch.istft(torch.polar(size, phase), FFT, HOP, window=torch.hann_window(FFT)).numpy()
