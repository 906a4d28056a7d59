"""Between the model, which gives 80 ms at a time, and the line, which takes 20 ms at a time by the clock.

Late frames leave a gap of silence, after which there is that much more in store, so that the next late frame
does not. What is in store is delay: quiet pieces of it are passed over until only `KEEP` is left, and more
than `MOST` is never kept, so that delay cannot grow.
"""

from collections import deque

import numpy as np

PIECE_SECONDS = 0.02
KEEP = 3  # pieces, 60 ms: a frame may be so late without being heard
MOST = 20  # pieces, 400 ms
QUIET = 0.003  # rms of full scale: nobody misses it


class Playout:
    """Sound on its way out. Called from one thread.

    Args:
        rate: samples per second, a multiple of 50.
    """

    def __init__(self, rate: int) -> None:
        self.size = round(rate * PIECE_SECONDS)
        self.silence = np.zeros(self.size, np.float32)
        self.pieces: deque[np.ndarray] = deque()
        self.rest = np.zeros(0, np.float32)
        self.gaps = self.dropped = 0  # pieces of silence put in, pieces left out

    def push(self, sound: np.ndarray) -> None:
        """Float32 [N], any length."""
        sound = np.concatenate([self.rest, sound])
        whole = len(sound) // self.size * self.size
        self.pieces.extend(sound[:whole].reshape(-1, self.size))
        self.rest = sound[whole:]
        while len(self.pieces) > MOST:
            self._drop()

    def pull(self) -> np.ndarray:
        """The next piece, float32 [rate / 50]: silence if there is none."""
        while len(self.pieces) > KEEP and np.sqrt(np.square(self.pieces[0]).mean()) < QUIET:
            self._drop()
        if self.pieces:
            return self.pieces.popleft()
        self.gaps += 1
        return self.silence

    def clear(self) -> None:
        """Forget what is in store: the model was interrupted."""
        self.pieces.clear()
        self.rest = self.rest[:0]

    def _drop(self) -> None:
        self.pieces.popleft()
        self.dropped += 1
