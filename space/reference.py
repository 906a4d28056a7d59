"""Is a recording good enough to clone a voice from?"""

import threading

import librosa
import numpy as np

SHORTEST, LONGEST = 3.0, 30.0  # seconds
LEAST_SPEECH = 2.0  # seconds louder than SPEECH
SPEECH = 0.01  # rms of 20 ms: -40 dB of full scale
FULL = 0.999  # of the peak, if that is near full scale
CLIPPED = 0.005  # share of samples that makes a recording useless; a tenth of it is worth a remark
APART, LEAST_SHARE, MOST_CHANGES = 0.5, 0.1, 0.05  # of two people's pitches: octaves, of the voiced frames, per frame
COMPILING = threading.Lock()  # held while `warm_up` is at it


def check_reference(samples: np.ndarray, rate: int) -> list[str]:
    """Float32 [N, channels] -> remarks about a doubtful recording; ValueError for a useless one."""
    sound = samples.mean(1)
    seconds = len(sound) / rate
    if not SHORTEST <= seconds <= LONGEST:
        raise ValueError(
            f"the recording is {seconds:.1f} s long; expected {SHORTEST:g} to {LONGEST:g} s of one person "
            "speaking"
        )
    if not np.isfinite(sound).all():
        raise ValueError(
            "the recording has NaN or infinite samples; expected finite numbers: save it again as 16 bit WAV"
        )
    size = rate // 50
    levels = np.sqrt(np.square(sound[: len(sound) // size * size].reshape(-1, size)).mean(1))
    spoken = float((levels > SPEECH).sum()) * size / rate
    if spoken == 0:
        raise ValueError("the recording is silent; expected audible speech: check the microphone or the file")
    if spoken < LEAST_SPEECH:
        raise ValueError(
            f"the recording holds only {spoken:.1f} s of audible speech; expected at least "
            f"{LEAST_SPEECH:g} s: speak nearer, or longer"
        )
    peak = float(np.abs(samples).max())
    clipped = float((np.abs(samples) >= FULL * peak).mean()) if peak > 0.95 else 0.0
    if clipped > CLIPPED:
        raise ValueError(
            f"{100 * clipped:.1f} % of the recording is clipped; expected none: lower the microphone's gain "
            "and record again"
        )
    remarks = [f"{spoken:.1f} s of speech."]
    if clipped > CLIPPED / 10:
        remarks.append(f"{100 * clipped:.2f} % of it is clipped: a quieter recording may sound cleaner.")
    pitches = None if COMPILING.locked() else two_pitches(sound, rate)  # a remark is not worth the wait
    if pitches:
        remarks.append("It sounds like two people, at {:.0f} and {:.0f} Hz: the clone will be neither.".format(*pitches))
    return remarks


def warm_up() -> None:
    """What the first call of `two_pitches` compiles: half a minute in a fresh container, a minute in a busy one."""
    with COMPILING:
        two_pitches(np.zeros(16_000, np.float32), 16_000)


def two_pitches(sound: np.ndarray, rate: int) -> tuple[float, float] | None:
    """The pitches in Hz of two people who speak in turn in `sound` [N], or None.

    One person's pitch wanders, and a tracker errs by an octave now and then; of two people one speaks for a while and then the other.
    People of much the same pitch are not told apart.
    """
    sound = librosa.resample(sound, orig_sr=rate, target_sr=16_000)
    f0, voiced, sure = librosa.pyin(sound, fmin=65, fmax=500, sr=16_000, frame_length=1024, hop_length=512, resolution=0.2)
    pitch = np.log2(f0[voiced & (sure > 0.3)])
    if len(pitch) < 20:
        return None
    centres = np.quantile(pitch, [0.1, 0.9])
    for _ in range(20):  # 2-means
        high = pitch > centres.mean()
        if high.all() or not high.any():
            return None
        centres = np.array([np.median(pitch[~high]), np.median(pitch[high])])
    share, changes = min(high.mean(), 1 - high.mean()), (high[1:] != high[:-1]).mean()
    apart = centres[1] - centres[0] > APART and share > LEAST_SHARE and changes < MOST_CHANGES
    return (float(2 ** centres[0]), float(2 ** centres[1])) if apart else None
