"""C++ of bfloat16 matrix products and convolutions, which `kernels_build_michiai.py` compiles after the int8 products."""

CONVOLUTIONS = r"""
// bfloat16 factors, float32 sums

namespace {

constexpr int TILE = 32;  // rows and columns that are multiplied at once
constexpr int GROUP = 4;  // rows whose sums are kept in registers, where there are no products of bfloat16

// y [count, 32] += rows of `a`, 32 values each, times w [32, 32]; up to GROUP - 1 rows more are computed
inline void accumulate(const float* a, int64_t stride, const float (*w)[TILE], int64_t count, float* y) {
    for (int64_t r = 0; r < count; r += GROUP)
        for (int column = 0; column < TILE; column += 2 * WIDTH) {
            const float *in = a + r * stride, *weights = w[0] + column;
            float* to = y + r * TILE + column;
            Floats total[GROUP][2];
            for (int i = 0; i < GROUP; i++) for (int v = 0; v < 2; v++) total[i][v] = read<Floats>(to + i * TILE + v * WIDTH);
            #pragma GCC unroll 8
            for (int k = 0; k < TILE; k++) {
                const Floats one = read<Floats>(weights + k * TILE), other = read<Floats>(weights + k * TILE + WIDTH);
                for (int i = 0; i < GROUP; i++) { total[i][0] += in[i * stride + k] * one; total[i][1] += in[i * stride + k] * other; }
            }
            for (int i = 0; i < GROUP; i++) for (int v = 0; v < 2; v++) write(to + i * TILE + v * WIDTH, total[i][v]);
        }
}

// use(k, column, at) for each part of a tile: there lie eight columns of its rows k (the lower halves of 32 bits) and k + 1
template <class Use>
inline void for_each_pair(Use use) {
    for (int half = 0; half < TILE; half += 16)
        for (int k = 0; k < TILE; k += 2)
            for (int i = 0; i < 16; i += WIDTH) use(k, half + i, half * TILE + k * 16 + 2 * i);
}

inline Floats lower(const uint16_t* w) { return (Floats)(read<Bits>(w) << 16); }
inline Floats upper(const uint16_t* w) { return (Floats)(read<Bits>(w) & 0xffff0000u); }

// y [32, 32] = sum over taps j of rows a + j * step, each of n values, times the tiles of w: [taps][n / 32][2][16][16][2].
// The first `count` rows are computed, and some of those beyond.
void product(const uint16_t* a, int64_t stride, int64_t step, int64_t taps, int64_t n, const uint16_t* w, int64_t count,
             float* y) {
#ifdef TILED
    if (TILES) {
        const bool both = count > TILE / 2;
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
        for (int64_t j = 0; j < taps; j++)
            for (int64_t c = 0; c < n; c += 32, w += 1024) {
                const uint16_t* from = a + j * step + c;
                _tile_loadd(6, w, 64);
                _tile_loadd(7, w + 512, 64);
                _tile_loadd(4, from, stride * 2);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                if (both) {
                    _tile_loadd(5, from + 16 * stride, stride * 2);
                    _tile_dpbf16ps(2, 5, 6);
                    _tile_dpbf16ps(3, 5, 7);
                }
            }
        _tile_stored(0, y, 128);
        _tile_stored(1, y + 16, 128);
        if (both) { _tile_stored(2, y + 512, 128); _tile_stored(3, y + 528, 128); }
        return;
    }
#endif
#ifdef __AVX512BF16__
    constexpr int GROUP = 8;
    for (int64_t r = 0; r < count; r += GROUP) {
        const uint16_t* tiles = w;
        __m512 total[GROUP][2];
        for (int i = 0; i < GROUP; i++) total[i][0] = total[i][1] = _mm512_setzero_ps();
        for (int64_t j = 0; j < taps; j++)
            for (int64_t c = 0; c < n; c += 32, tiles += 1024)
                for (int k = 0; k < 16; k++) {
                    const __m512bh left = (__m512bh)_mm512_loadu_si512(tiles + k * 32);
                    const __m512bh right = (__m512bh)_mm512_loadu_si512(tiles + 512 + k * 32);
                    for (int i = 0; i < GROUP; i++) {
                        int32_t pair;
                        std::memcpy(&pair, a + (r + i) * stride + j * step + c + 2 * k, 4);
                        const __m512bh both_of = (__m512bh)_mm512_set1_epi32(pair);
                        total[i][0] = _mm512_dpbf16_ps(total[i][0], both_of, left);
                        total[i][1] = _mm512_dpbf16_ps(total[i][1], both_of, right);
                    }
                }
        for (int i = 0; i < GROUP; i++)
            for (int k = 0; k < 2; k++) _mm512_storeu_ps(y + (r + i) * TILE + 16 * k, total[i][k]);
    }
#else
    alignas(32) float left[TILE][TILE], right[TILE][TILE];
    std::fill(y, y + up_to(GROUP, count) * TILE, 0.0f);
    for (int64_t j = 0; j < taps; j++)
        for (int64_t c = 0; c < n; c += TILE, w += TILE * TILE) {
            for (int64_t r = 0; r < up_to(GROUP, count); r++)
                for (int i = 0; i < TILE; i += WIDTH) write(left[r] + i, floats_of(a + r * stride + j * step + c + i));
            for_each_pair([&](int k, int column, int64_t at) {
                write(right[k] + column, lower(w + at));
                write(right[k + 1] + column, upper(w + at));
            });
            accumulate(left[0], TILE, right, count, y);
        }
#endif
}

// Rows of `a` times the columns of block number `block`: emit(t, 32 values) for t = 0 .. rows - 1
template <class Emit>
void columns(const uint16_t* a, int64_t rows, int64_t n, int64_t taps, int64_t dilation, const uint16_t* w, int64_t block, Emit emit) {
    alignas(64) float y[TILE * TILE];
    for (int64_t t = 0; t < rows; t += TILE) {
        const int64_t count = std::min<int64_t>(TILE, rows - t);
        product(a + t * n, n, dilation * n, taps, n, w + block * TILE * taps * n, count, y);
        for (int64_t i = 0; i < count; i++) emit(t + i, y + i * TILE);
    }
}

// Convolutions by fewer products (Winograd; Lavin and Gray, arXiv 1509.09308), where these are float32 and take most of the time.
// Taps and inputs are brought to POINTS points, as polynomials would be, multiplied there and brought back: OUT outputs of TAPS taps
// in 7 products in place of 16. Rounding errors are 3e-7 of the result.
#if defined __AVX512BF16__ || defined EVERY_PRODUCT  // the latter for tests
constexpr bool FEWER = false;
#else
constexpr bool FEWER = true;
#endif
constexpr int OUT = 4, TAPS = 4, POINTS = OUT + TAPS - 1, LAST = POINTS - 1;
constexpr double PLACES[LAST] = {0, 1, -1, 2, -2, 0.5};  // the last point is infinity
alignas(32) constexpr uint16_t NOTHING[TILE * TILE] = {};  // a tile for taps that a convolution has not
constexpr int MANY = 96;  // rows of points for which weights are brought there once

struct Transforms { float in[POINTS][POINTS], out[OUT][POINTS]; };  // of inputs, and back; that of taps is a polynomial's value

constexpr Transforms transforms() {
    Transforms made{};
    for (int u = 0; u < POINTS; u++) {
        double product[POINTS] = {1}, scale = 1, power = 1;  // product: of all x - place but this point's own
        for (int l = 0; l < LAST; l++) {
            if (l == u) continue;
            for (int i = LAST; i >= 0; i--) product[i] = (i ? product[i - 1] : 0) - PLACES[l] * product[i];
            if (u < LAST) scale *= PLACES[u] - PLACES[l];
        }
        for (int i = 0; i < POINTS; i++) made.in[u][i] = product[i] / scale;
        for (int i = 0; i < OUT; i++) {
            made.out[i][u] = u < LAST ? power : i == OUT - 1;
            if (u < LAST) power *= PLACES[u];
        }
    }
    return made;
}
constexpr Transforms TO = transforms();

// Steps of equal phase in the dilation follow each other in blocks of OUT: row b * dilation + s at the points is made of the inputs
// b * OUT * dilation + s, one dilation further, and so on.
struct Rows {
    int64_t outputs, inputs;
    Rows(int64_t steps, int64_t taps, int64_t dilation) {
        const int64_t blocks = (steps + OUT * dilation - 1) / (OUT * dilation), pieces = (taps + TAPS - 1) / TAPS;
        outputs = blocks * dilation, inputs = outputs + (pieces - 1) * dilation;
    }
    int64_t size(int64_t n) const { return POINTS * room() * n; }
    int64_t room() const { return inputs + GROUP; }
    static int64_t first(int64_t row, int64_t dilation) { return row / dilation * OUT * dilation + row % dilation; }
};

// `a`, `length` of n values, at the points: values [POINTS][rows][n], of which those from `begin` to `end` are computed.
void to_points(const uint16_t* a, int64_t length, int64_t n, int64_t dilation, const Rows& rows, float* values, int64_t begin,
               int64_t end) {
    for (int64_t row = begin; row < end; row++)
        for (int64_t c = 0; c < n; c += WIDTH) {
            Floats x[POINTS];
            for (int i = 0; i < POINTS; i++) {
                const int64_t t = Rows::first(row, dilation) + i * dilation;
                x[i] = t < length ? floats_of(a + t * n + c) : Floats{};
            }
            #pragma GCC unroll 7
            for (int u = 0; u < POINTS; u++) {
                Floats sum{};
                #pragma GCC unroll 7
                for (int i = 0; i < POINTS; i++) if (TO.in[u][i] != 0) sum += TO.in[u][i] * x[i];
                write(values + (u * rows.room() + row) * n + c, sum);
            }
        }
}

// The convolution whose inputs were brought to the points: emit(t, 32 values) for t = 0 .. steps - 1, of block number `block`
template <class Emit>
void from_points(const float* values, const Rows& rows, int64_t steps, int64_t n, int64_t taps, int64_t dilation, const uint16_t* w,
                 int64_t block, Emit emit) {
    alignas(32) float right[POINTS][TILE][TILE], y[POINTS][MANY * TILE], out[TILE];
    w += block * TILE * taps * n;
    for (int64_t begin = 0; begin < rows.outputs; begin += MANY) {
        const int64_t count = std::min<int64_t>(MANY, rows.outputs - begin);
        std::fill(y[0], y[0] + POINTS * MANY * TILE, 0.0f);
        for (int64_t tap = 0; tap < taps; tap += TAPS)
            for (int64_t c = 0; c < n; c += TILE) {
                const uint16_t* tile[TAPS];
                for (int j = 0; j < TAPS; j++) tile[j] = tap + j < taps ? w + ((tap + j) * n + c) * TILE : NOTHING;
                for_each_pair([&](int k, int column, int64_t at) {
                    for (int odd = 0; odd < 2; odd++) {
                        Floats f[TAPS];
                        for (int j = 0; j < TAPS; j++) f[j] = odd ? upper(tile[j] + at) : lower(tile[j] + at);
                        float* to = right[0][k + odd] + column;
                        #pragma GCC unroll 6
                        for (int u = 0; u < LAST; u++) {
                            const float x = PLACES[u];
                            write(to + u * TILE * TILE, f[0] + x * (f[1] + x * (f[2] + x * f[3])));
                        }
                        write(to + LAST * TILE * TILE, f[TAPS - 1]);
                    }
                    for (int j = 0; j < TAPS; j++) __builtin_prefetch(tile[j] + at + TILE * TILE);
                });
                for (int u = 0; u < POINTS; u++) {
                    const float* in = values + (u * rows.room() + begin + tap / TAPS * dilation) * n + c;
                    accumulate(in, n, right[u], count, y[u]);
                }
            }
        for (int64_t i = 0; i < count; i++)
            for (int k = 0; k < OUT; k++) {
                const int64_t t = Rows::first(begin + i, dilation) + k * dilation;
                if (t >= steps) break;
                for (int column = 0; column < TILE; column += WIDTH) {
                    Floats sum{};
                    #pragma GCC unroll 7
                    for (int u = 0; u < POINTS; u++) sum += TO.out[k][u] * read<Floats>(y[u] + i * TILE + column);
                    write(out + column, sum);
                }
                emit(t, out);
            }
    }
}

}  // namespace
"""
