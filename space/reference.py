"""Is a recording good enough to clone a voice from?"""

import numpy as np

SHORTEST, LONGEST = 3.0, 30.0  # seconds
LEAST_SPEECH = 2.0  # seconds louder than SPEECH
SPEECH = 0.01  # rms of 20 ms: -40 dB of full scale
FULL = 0.999  # of the peak, if that is near full scale
CLIPPED = 0.005  # share of samples that makes a recording useless; a tenth of it is worth a remark


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
    return remarks
