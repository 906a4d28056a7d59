"""Every number of the architecture: one strict class per part, and the arithmetic of the frame.

The defaults are those of nano (16 kHz); `configs/530m/config.json` states the release model.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.models.llama import LlamaConfig

CHECKPOINT_VERSION = 3


def exact_div(numerator: int, denominator: int, what: str) -> int:
    """`numerator / denominator`, refusing to round: a frame of 1280.5 samples would drift."""
    if denominator <= 0 or numerator % denominator:
        raise ValueError(f"{what}: {numerator} is not divisible by {denominator}; choose numbers that divide evenly")
    return numerator // denominator


@dataclass
class CodecConfig:
    """AudioEncoder: waveform -> one latent per frame."""

    mel_bins: int = 80
    n_fft: int = 512
    mel_rate: int = 100  # mel frames per second
    width: int = 120
    depth: int = 2  # residual blocks after each halving of the rate
    latent_dim: int = 32


@dataclass
class VocoderConfig:
    """Vocoder: latents -> waveform."""

    rate: int = 100  # of the trunk, per second
    width: int = 224  # of the trunk
    depth: int = 5  # residual blocks of the trunk
    upsample_rates: list[int] = field(default_factory=lambda: [10])
    upsample_widths: list[int] = field(default_factory=lambda: [64])
    resblock_kernels: list[int] = field(default_factory=lambda: [3, 7])
    resblock_dilations: list[int] = field(default_factory=lambda: [1, 3])
    resblock_pairs: bool = False  # each dilated convolution is followed by a plain one, as in HiFi-GAN V1
    istft_hop: int = 16  # samples per inverse STFT frame, which is where the upsampling ends
    istft_n_fft: int = 64


@dataclass
class ListenConfig:
    """ListenHead: user audio -> embedding, text and turn gate, per frame."""

    mel_bins: int = 80
    n_fft: int = 512
    mel_rate: int = 100
    conv_width: int = 192
    width: int = 256
    layers: int = 7
    heads: int = 4
    window: int = 100  # frames that attention looks back
    delay: int = 3  # frames between the end of a word and its text token


@dataclass
class SpeakConfig:
    """SpeakHead: velocity network of the flow over one latent."""

    width: int = 288
    depth: int = 3
    time_features: int = 128
    text_lead: int = 2  # frames by which own text leads own audio
    temperature: float = 0.1  # variance of the noise that sampling starts from: the less, the better it is understood
    guidance: float = 0.0  # how far a given voice goes beyond its latents, away from those of no voice: nearer to it, but less clear


PARTS: dict[str, type] = {
    "codec_config": CodecConfig,
    "listen_config": ListenConfig,
    "speak_config": SpeakConfig,
    "vocoder_config": VocoderConfig,
}


def strict(cls: type, values: Any, where: str) -> Any:
    """Build `cls` from a dict, refusing unknown keys and wrong types by name."""
    if isinstance(values, cls) or values is None:
        return values or cls()
    if not isinstance(values, dict):  # the same class from another copy of this module
        values = asdict(values)
    known = {f.name: f for f in fields(cls)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{where} has an unknown key {key!r}; expected one of {sorted(known)}: is it misspelt?")
        default = getattr(cls(), key)
        wanted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, wanted) or isinstance(value, bool) != isinstance(default, bool):
            raise ValueError(f"{where}.{key} is {value!r}; expected {type(default).__name__}, like {default!r}")
    return cls(**values)


class MichiAIConfig(PretrainedConfig):
    """Configuration of a whole MichiAI model.

    Args:
        text_config: the text LLM's own configuration (Llama kind), or a dict of it.
        codec_config, listen_config, speak_config, vocoder_config: the parts, or dicts of them; unknown keys are refused.
        sampling_rate: samples per second of the model's audio, in and out.
        frame_rate: frames per second; one frame is one position of the backbone.
        window: frames that the backbone's memory holds beside the prompt.
        text_window: text tokens (said, heard or injected) that it holds beside the prompt.
        max_prompt: positions that the prompt (text and voice) may take.
        spoken_text: text is normalised to spoken form (lower case, numbers as words) before tokenising.
        special_tokens: tokens by name; their ids in the tokenizer.
        optimized: the form that the weights are saved in, "cpu-int8"; None: plain.
    """

    model_type = "michiai"
    sub_configs = {"text_config": AutoConfig}
    OWN = ("sampling_rate", "frame_rate", "window", "text_window", "max_prompt", "spoken_text", "special_tokens", "optimized",
           "checkpoint_version")

    def __init__(
        self,
        text_config: dict | PretrainedConfig | None = None,
        codec_config: dict | CodecConfig | None = None,
        listen_config: dict | ListenConfig | None = None,
        speak_config: dict | SpeakConfig | None = None,
        vocoder_config: dict | VocoderConfig | None = None,
        sampling_rate: int = 16_000,
        frame_rate: float = 12.5,
        window: int = 375,
        text_window: int = 256,
        max_prompt: int = 320,
        spoken_text: bool = True,
        special_tokens: dict[str, int] | None = None,
        optimized: str | None = None,
        checkpoint_version: int = CHECKPOINT_VERSION,
        **kwargs: Any,
    ) -> None:
        if checkpoint_version != CHECKPOINT_VERSION:
            raise ValueError(
                f"checkpoint_version is {checkpoint_version}, this code reads version {CHECKPOINT_VERSION}; "
                "load the checkpoint with the code of its own repository (trust_remote_code=True, revision=...)"
            )
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**{"model_type": "llama", **text_config})
        self.text_config = text_config or nano_text_config()
        given = {"codec_config": codec_config, "listen_config": listen_config}
        given |= {"speak_config": speak_config, "vocoder_config": vocoder_config}
        for name, values in given.items():
            setattr(self, name, strict(PARTS[name], values, name))
        self.sampling_rate = sampling_rate
        self.frame_rate = frame_rate
        self.window = window
        self.text_window = text_window
        self.max_prompt = max_prompt
        self.spoken_text = spoken_text
        self.special_tokens = dict(special_tokens or {name: i for i, name in enumerate(SPECIAL_TOKENS)})
        self.optimized = optimized
        self.checkpoint_version = checkpoint_version
        kwargs.setdefault("tie_word_embeddings", self.text_config.tie_word_embeddings)
        self._refuse_unknown(kwargs)
        super().__init__(**kwargs)
        self._check()

    def _check(self) -> None:
        """Refuse values of the wrong type, and numbers that do not fit one another."""
        for name in ("sampling_rate", "window", "text_window", "max_prompt"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"config.{name} is {value!r}; expected a whole number of 1 or more")
        if not isinstance(self.frame_rate, int | float) or not self.frame_rate > 0:
            raise ValueError(f"config.frame_rate is {self.frame_rate!r}; expected a number above 0, like 12.5")
        if self.sampling_rate % self.frame_rate:
            raise ValueError(f"config.sampling_rate {self.sampling_rate} is not divisible by frame_rate {self.frame_rate}; "
                             "expected a whole number of samples per frame")
        if self.optimized not in (None, "cpu-int8"):
            raise ValueError(f"config.optimized is {self.optimized!r}; expected null or 'cpu-int8'")
        missing = [name for name in SPECIAL_TOKENS if name not in self.special_tokens]
        outside = {name: i for name, i in self.special_tokens.items() if not 0 <= i < self.text_config.vocab_size}
        if missing or outside:
            raise ValueError(f"config.special_tokens lacks {missing} and has {outside}; expected an id below vocab_size "
                             f"{self.text_config.vocab_size} for each of {list(SPECIAL_TOKENS)}")

    @staticmethod
    def _refuse_unknown(kwargs: dict[str, Any]) -> None:
        known = set(vars(PretrainedConfig())) | set(PretrainedConfig.__annotations__) | set(PretrainedConfig().to_dict())
        known |= {"auto_map", "model_type", "torch_dtype", "dtype", "attn_implementation", "name_or_path", "tie_word_embeddings"}
        for key in kwargs:
            if key not in known and not key.startswith("_"):
                raise ValueError(f"config has an unknown key {key!r}; expected one of {sorted(MichiAIConfig.OWN)} "
                                 f"or a part ({', '.join(PARTS)}, text_config): is it misspelt?")

    @property
    def frame_size(self) -> int:
        """Samples per frame."""
        return round(self.sampling_rate / self.frame_rate)

    @property
    def latent_dim(self) -> int:
        return self.codec_config.latent_dim

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        for name in PARTS:
            output[name] = asdict(getattr(self, name))
        return output

    def to_diff_dict(self) -> dict[str, Any]:
        """Everything is written out: a config file should say what the model is."""
        own = {name: value for name, value in self.to_dict().items() if name in (*self.OWN, *PARTS, "text_config")}
        return own | {k: v for k, v in super().to_diff_dict().items() if k not in own}


class MichiAIVocoderConfig(MichiAIConfig):
    """The same of the vocoder as a model of its own: transformers tells models apart by the class of their configuration."""

    model_type = "michiai_vocoder"

    def __init__(self, **kwargs: Any) -> None:  # without one of its own, transformers would make one of its fields
        super().__init__(**kwargs)


SOUNDS = ("<breath>", "<laugh>", "<cough>", "<hm>")  # which both sides make
SPECIAL_TOKENS = (
    "<pad>",  # nothing new in this frame
    "<turn>",  # I start to speak
    "<done>",  # I have finished
    "<user>",  # (text only) the user speaks
    "<instructions>",
    "<context>",
    *SOUNDS,
)


def nano_text_config(vocab_size: int = 1200) -> LlamaConfig:
    """The text LLM of nano."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=7,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
