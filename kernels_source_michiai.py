"""C++ of the int8 and bfloat16 kernels, which `kernels_michiai.py` compiles; a string, since the Hub brings remote code as Python."""

SOURCE = r"""
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>
#include <omp.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif
#if defined __AMX_BF16__ && defined __AMX_INT8__
#define TILED
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr int ROWS = 4;     // rows of a matrix, and of its input, that are multiplied at once
constexpr int BLOCK = 64;   // slots that attention looks at together

struct Matrix {
    const int8_t* weight; const float* scale; const int32_t* sums;
    static Matrix at(const int64_t* addresses) {
        return {reinterpret_cast<const int8_t*>(addresses[0]), reinterpret_cast<const float*>(addresses[1]),
                reinterpret_cast<const int32_t*>(addresses[2])};
    }
};

// int8 inputs with their scales: row m at levels + m * stride, moved up by 128 to be unsigned
struct Levels { uint8_t* levels; float* scale; int64_t stride; };

int64_t padded(int64_t n) { return (n + 63) / 64 * 64; }

float from_bf16(uint16_t value) { uint32_t bits = uint32_t(value) << 16; float x; std::memcpy(&x, &bits, 4); return x; }

uint16_t to_bf16(float x) {
    uint32_t bits; std::memcpy(&bits, &x, 4);
    return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// e^x by a polynomial for the fraction of a power of 2 (off by 9e-8 of its value): the compiler makes vectors of it
inline float exp_of(float x) {
    x = std::min(std::max(x, -87.0f), 87.0f) * 1.44269504f;
    float whole = std::floor(x), part = x - whole;
    float y = 1.8775767e-3f;
    y = y * part + 8.9893397e-3f; y = y * part + 5.5826318e-2f; y = y * part + 2.4015361e-1f;
    y = y * part + 6.9315308e-1f; y = y * part + 9.9999994e-1f;
    uint32_t bits = uint32_t(int32_t(whole) + 127) << 23; float power; std::memcpy(&power, &bits, 4);
    return y * power;
}

void quantise(const float* x, int64_t n, int64_t m, Levels out) {
    float largest = 1e-12f;
    for (int64_t i = 0; i < n; i++) largest = std::max(largest, std::fabs(x[i]));
    float inverse = 127.0f / largest;
    uint8_t* levels = out.levels + m * out.stride;
    for (int64_t i = 0; i < n; i++) levels[i] = uint8_t(int32_t(std::nearbyint(x[i] * inverse)) + 128);
    std::memset(levels + n, 0, out.stride - n);
    out.scale[m] = largest / 127.0f;
}

// sums[r][m] = levels of input m times row r
template <int R, int M>
void products(const uint8_t* x, int64_t stride, const int8_t* w, int64_t n, int32_t sums[R][M]) {
#ifdef __AVX512VNNI__
    __m512i total[R][M];
    for (int r = 0; r < R; r++) for (int m = 0; m < M; m++) total[r][m] = _mm512_setzero_si512();
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i inputs[M];
        for (int m = 0; m < M; m++) inputs[m] = _mm512_loadu_si512(x + m * stride + i);
        for (int r = 0; r < R; r++) {
            __m512i row = _mm512_loadu_si512(w + r * n + i);
            _mm_prefetch(reinterpret_cast<const char*>(w + (r + R) * n + i), _MM_HINT_T0);  // of the rows that come next
            for (int m = 0; m < M; m++) total[r][m] = _mm512_dpbusd_epi32(total[r][m], inputs[m], row);
        }
    }
    if (i < n) {
        __mmask64 rest = (1ULL << (n - i)) - 1;
        for (int r = 0; r < R; r++) {
            __m512i row = _mm512_maskz_loadu_epi8(rest, w + r * n + i);
            for (int m = 0; m < M; m++) total[r][m] = _mm512_dpbusd_epi32(total[r][m], _mm512_loadu_si512(x + m * stride + i), row);
        }
    }
    for (int m = 0; m < M; m++) {
        if constexpr (R == 4) {  // four sums at once
            __m512i one = total[0][m], two = total[1][m], three = total[2][m], last = total[3][m];
            __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(one, two), _mm512_unpackhi_epi32(one, two));
            __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(three, last), _mm512_unpackhi_epi32(three, last));
            a = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
            __m256i c = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
            __m128i d = _mm_add_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
            int32_t four[4];
            _mm_storeu_si128(reinterpret_cast<__m128i*>(four), d);
            for (int r = 0; r < R; r++) sums[r][m] = four[r];
        } else
            for (int r = 0; r < R; r++) sums[r][m] = _mm512_reduce_add_epi32(total[r][m]);
    }
#else
    for (int r = 0; r < R; r++) for (int m = 0; m < M; m++) {
        int32_t total = 0;
        for (int64_t i = 0; i < n; i++) total += int32_t(x[m * stride + i]) * int32_t(w[r * n + i]);
        sums[r][m] = total;
    }
#endif
}

template <int R, int M, class Emit>
void tile(Levels x, int64_t m, Matrix a, int64_t r, int64_t n, Emit emit) {
    int32_t sums[R][M];
    products<R, M>(x.levels + m * x.stride, x.stride, a.weight + r * n, n, sums);
    for (int i = 0; i < R; i++) for (int j = 0; j < M; j++)
        emit(m + j, r + i, float(sums[i][j] - 128 * a.sums[r + i]) * a.scale[r + i] * x.scale[m + j]);
}

template <int R, class Emit>
void strip(Levels x, int64_t M, Matrix a, int64_t r, int64_t n, Emit emit) {
    int64_t m = 0;
    for (; m + ROWS <= M; m += ROWS) tile<R, ROWS>(x, m, a, r, n, emit);
    switch (M - m) {
        case 3: tile<R, 3>(x, m, a, r, n, emit); break;
        case 2: tile<R, 2>(x, m, a, r, n, emit); break;
        case 1: tile<R, 1>(x, m, a, r, n, emit); break;
    }
}

// emit(m, r, value) for rows first .. last of a matrix with n columns
template <class Emit>
void multiply(Levels x, int64_t M, Matrix a, int64_t first, int64_t last, int64_t n, Emit emit) {
    int64_t r = first;
    for (; r + ROWS <= last; r += ROWS) strip<ROWS>(x, M, a, r, n, emit);
    for (; r < last; r++) strip<1>(x, M, a, r, n, emit);
}

// this thread's share of n things, in whole groups
void share(int64_t n, int thread, int threads, int64_t& first, int64_t& last, int64_t group = ROWS) {
    int64_t groups = (n + group - 1) / group;
    first = std::min(n, groups * thread / threads * group);
    last = std::min(n, groups * (thread + 1) / threads * group);
}

#ifdef TILED
// the operating system grants a process the tiles when it asks; without them the other kernels run
const bool TILES = syscall(SYS_arch_prctl, 0x1023, 18) == 0;

void begin_tiles() {
    struct { uint8_t palette = 1, start = 0, unused[14] = {}; uint16_t bytes[16] = {}; uint8_t rows[16] = {}; } config;
    for (int i = 0; i < 8; i++) { config.bytes[i] = 64; config.rows[i] = 16; }
    _tile_loadconfig(&config);
}

// input m as tiles take it: [M / 16][n / 64][16][16][4]
void arrange(Levels x, int64_t m, int64_t n, uint8_t* y) {
    for (int64_t i = 0; i < n; i += 4)
        std::memcpy(y + (m / 16 * (n / 64) + i / 64) * 1024 + i % 64 * 16 + m % 16 * 4, x.levels + m * x.stride + i, 4);
}

// `multiply` of many inputs, arranged; first, last and n are whole tiles
template <class Emit>
void multiply_tiles(const uint8_t* inputs, Levels x, int64_t M, Matrix a, int64_t first, int64_t last, int64_t n, Emit emit) {
    alignas(64) int32_t sums[4][16][16];
    for (int64_t r = first; r < last; r += 32)
        for (int64_t m = 0; m < M; m += 32) {
            const bool below = r + 16 < last, beside = m + 16 < M;
            _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
            for (int64_t i = 0; i < n; i += 64) {
                const uint8_t* from = inputs + m * n + i * 16;
                _tile_loadd(4, a.weight + r * n + i, n);
                _tile_loadd(6, from, 64);
                _tile_dpbsud(0, 4, 6);
                if (beside) { _tile_loadd(7, from + 16 * n, 64); _tile_dpbsud(1, 4, 7); }
                if (below) { _tile_loadd(5, a.weight + (r + 16) * n + i, n); _tile_dpbsud(2, 5, 6); }
                if (below && beside) _tile_dpbsud(3, 5, 7);
            }
            _tile_stored(0, sums[0], 64); _tile_stored(1, sums[1], 64); _tile_stored(2, sums[2], 64); _tile_stored(3, sums[3], 64);
            for (int64_t j = m; j < std::min(m + 32, M); j++)
                for (int64_t i = r; i < std::min(r + 32, last); i++) {
                    const int32_t sum = sums[(i - r) / 16 * 2 + (j - m) / 16][(i - r) % 16][(j - m) % 16];
                    emit(j, i, float(sum - 128 * a.sums[i]) * a.scale[i] * x.scale[j]);
                }
        }
}
#endif

struct Shape { int64_t S, B, T, D, H, G, size, F, P, K; float eps, scaling; };

// [S, 2, B, H, slots, size] with the strides of the first three
struct Memory { uint16_t* data; int64_t layer, pair, batch; };

void normalise(const float* x, const float* weight, int64_t D, float eps, int64_t m, float* scratch, Levels out) {
    float square = 0;
    for (int64_t i = 0; i < D; i++) square += x[i] * x[i];
    float inverse = 1.0f / std::sqrt(square / D + eps);
    for (int64_t i = 0; i < D; i++) scratch[i] = x[i] * inverse * weight[i];
    quantise(scratch, D, m, out);
}

// rotary position embedding of one head; the sines of the first half are negative
void rotate(const float* x, const float* cos, const float* sin, int64_t size, float factor, float* y) {
    int64_t half = size / 2;
    for (int64_t i = 0; i < half; i++) {
        y[i] = (x[i] * cos[i] + x[i + half] * sin[i]) * factor;
        y[i + half] = (x[i + half] * cos[i + half] + x[i] * sin[i + half]) * factor;
    }
}

#ifdef __AVX512F__
__m512 widened(const uint16_t* from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))), 16));
}
#endif

// y [queries, BLOCK] = queries [.., size] times the keys that stand at `rows`
void score(const float* query, int64_t queries, const uint16_t* keys, const int32_t* rows, int64_t count, int64_t size, float* y) {
#ifdef __AVX512F__
    if (size == 64) {
        for (int64_t j = 0; j < count; j += 4) {
            __m512 key[4][4];
            for (int r = 0; r < 4; r++)
                for (int c = 0; c < 4; c++) key[r][c] = widened(keys + rows[std::min(j + r, count - 1)] * 64 + 16 * c);
            for (int64_t q = 0; q < queries; q++) {
                __m512 total[4];
                for (int r = 0; r < 4; r++) total[r] = _mm512_mul_ps(key[r][0], _mm512_loadu_ps(query + q * 64));
                for (int c = 1; c < 4; c++)
                    for (int r = 0; r < 4; r++) total[r] = _mm512_fmadd_ps(key[r][c], _mm512_loadu_ps(query + q * 64 + 16 * c), total[r]);
                __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(total[0], total[1]), _mm512_unpackhi_ps(total[0], total[1]));
                __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(total[2], total[3]), _mm512_unpackhi_ps(total[2], total[3]));
                __m512d left = _mm512_castps_pd(a), right = _mm512_castps_pd(b);
                a = _mm512_castpd_ps(_mm512_unpacklo_pd(left, right)) + _mm512_castpd_ps(_mm512_unpackhi_pd(left, right));
                __m128 low = _mm512_extractf32x4_ps(a, 0) + _mm512_extractf32x4_ps(a, 1);
                __m128 high = _mm512_extractf32x4_ps(a, 2) + _mm512_extractf32x4_ps(a, 3);
                _mm_storeu_ps(y + q * BLOCK + j, low + high);
            }
        }
        return;
    }
#endif
    for (int64_t q = 0; q < queries; q++)
        for (int64_t j = 0; j < count; j++) {
            float total = 0;
            for (int64_t i = 0; i < size; i++) total += query[q * size + i] * from_bf16(keys[rows[j] * size + i]);
            y[q * BLOCK + j] = total;
        }
}

// y [N, stride] += weights [N, BLOCK] times the values that stand at `rows`
template <int N>
void weigh(const float* weights, const uint16_t* values, const int32_t* rows, int64_t count, int64_t size, float* y, int64_t stride) {
#ifdef __AVX512F__
    if (size == 64) {
        __m512 total[N][4];
        for (int n = 0; n < N; n++) for (int c = 0; c < 4; c++) total[n][c] = _mm512_loadu_ps(y + n * stride + 16 * c);
        for (int64_t j = 0; j < count; j++) {
            __m512 value[4];
            for (int c = 0; c < 4; c++) value[c] = widened(values + rows[j] * 64 + 16 * c);
            for (int n = 0; n < N; n++)
                for (int c = 0; c < 4; c++) total[n][c] = _mm512_fmadd_ps(_mm512_set1_ps(weights[n * BLOCK + j]), value[c], total[n][c]);
        }
        for (int n = 0; n < N; n++) for (int c = 0; c < 4; c++) _mm512_storeu_ps(y + n * stride + 16 * c, total[n][c]);
        return;
    }
#endif
    for (int n = 0; n < N; n++)
        for (int64_t j = 0; j < count; j++)
            for (int64_t i = 0; i < size; i++) y[n * stride + i] += weights[n * BLOCK + j] * from_bf16(values[rows[j] * size + i]);
}

// Attention of some queries to a block of slots, put together with that to the blocks before: y [queries, 2 + size] holds of each the
// maximum of its scores, the sum of its weights and its weighted values.
void look_at(const float* query, int64_t queries, int64_t per_mask, const uint16_t* keys, const uint16_t* values, const int32_t* rows,
             const float* mask, int64_t mask_stride, int64_t count, int64_t size, float* scores, float* y) {
    const int64_t part = size + 2;
    score(query, queries, keys, rows, count, size, scores);
    for (int64_t q = 0; q < queries; q++) {
        float *own = scores + q * BLOCK, *to = y + q * part, most = -INFINITY;
        const float* unseen = mask + q / per_mask * mask_stride;
        for (int64_t j = 0; j < count; j++) { own[j] += unseen[j]; most = std::max(most, own[j]); }
        if (most == -INFINITY) { std::fill(own, own + count, 0.0f); continue; }
        const float top = std::max(to[0], most), shrink = to[0] == -INFINITY ? 0.0f : exp_of(to[0] - top);
        float sum = 0;
        for (int64_t j = 0; j < count; j++) {
            own[j] = own[j] == -INFINITY ? 0.0f : exp_of(own[j] - top);
            sum += own[j];
        }
        to[0] = top;
        to[1] = to[1] * shrink + sum;
        for (int64_t i = 0; i < size; i++) to[2 + i] *= shrink;
    }
    int64_t q = 0;
    for (; q + 3 <= queries; q += 3) weigh<3>(scores + q * BLOCK, values, rows, count, size, y + q * part + 2, part);
    for (; q < queries; q++) weigh<1>(scores + q * BLOCK, values, rows, count, size, y + q * part + 2, part);
}

}  // namespace

extern "C" void multiply_int8(const float* x, const int8_t* weight, const float* scale, const int32_t* sums, const float* bias,
                              float* y, int64_t M, int64_t N, int64_t n, int64_t threads) {
    Matrix a{weight, scale, sums};
    std::vector<uint8_t> levels(M * padded(n));
    std::vector<float> scales(M);
    Levels q{levels.data(), scales.data(), padded(n)};
    auto emit = [&](int64_t m, int64_t r, float value) { y[m * N + r] = bias ? value + bias[r] : value; };
#ifdef TILED
    const bool tiled = TILES && M >= 16 && N % 16 == 0 && n % 64 == 0;
    std::vector<uint8_t> arranged(tiled ? (M + 15) / 16 * 16 * n : 0);
#endif
    #pragma omp parallel num_threads(threads) if (threads > 1 && N * n > 65536)
    {
        int64_t first, last;
        #pragma omp for
        for (int64_t m = 0; m < M; m++) {
            quantise(x + m * n, n, m, q);
#ifdef TILED
            if (tiled) arrange(q, m, n, arranged.data());
#endif
        }
#ifdef TILED
        if (tiled) {
            begin_tiles();
            share(N, omp_get_thread_num(), omp_get_num_threads(), first, last, 16);
            multiply_tiles(arranged.data(), q, M, a, first, last, n, emit);
            _tile_release();
        } else
#endif
        {
            share(N, omp_get_thread_num(), omp_get_num_threads(), first, last);
            multiply(q, M, a, first, last, n, emit);
        }
    }
}

// plan: per layer the addresses of norm, (weight, scale, sums) of queries with keys and values, of the output, norm, and those of
// gate with up, and of down. x [B T, D] is changed in place. prompt and memory are written at `slot`, one of them.
extern "C" void follow_layers(const int64_t* plan, const Shape* shape, float* x, const Memory* prompt, const Memory* memory,
                              int64_t write_prompt, const int64_t* slot, const uint8_t* seen, const float* cos, const float* sin,
                              int64_t threads) {
    const auto [S, B, T, D, H, G, size, F, P, K, eps, scaling] = *shape;
    const int64_t M = B * T, Q = T * G, heads = H * G, slots = P + K, total = (heads + 2 * H) * size;
    const int64_t wide = padded(std::max({D, F, heads * size}));

    // Which slots any position of a row of the batch sees, as rows of the prompt and then of the memory, and what each position adds to
    // their scores.
    std::vector<std::vector<int32_t>> look(B);
    std::vector<std::vector<float>> masks(B);
    std::vector<int64_t> of_prompt(B);
    for (int64_t b = 0; b < B; b++) {
        std::vector<int64_t> which;
        for (int64_t s = 0; s < slots; s++)
            for (int64_t t = 0; t < T; t++)
                if (seen[(b * T + t) * slots + s]) { which.push_back(s); break; }
        for (int64_t s : which) { look[b].push_back(int32_t(s < P ? s : s - P)); of_prompt[b] += s < P; }
        for (int64_t t = 0; t < T; t++)
            for (int64_t s : which) masks[b].push_back(seen[(b * T + t) * slots + s] ? 0.0f : -INFINITY);
    }

    std::vector<float> joined(M * total), hidden(M * F), raised(M * F);
    const int64_t part = size + 2;  // of a query's attention: maximum, sum of weights, weighted values
    std::vector<float> parts(threads * M * heads * part);

    #pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num(), n = omp_get_num_threads();
        std::vector<uint8_t> levels(M * wide);
        std::vector<float> scales(M), scratch(std::max(wide, heads * size)), query(2 * Q * size), scores(Q * BLOCK), sight(Q * part);
        int64_t first, last;
        Levels q{levels.data(), scales.data(), wide};
        for (int64_t layer = 0; layer < S; layer++) {
            const int64_t* at = plan + layer * 14;
            auto floats = [&](int i) { return reinterpret_cast<const float*>(at[i]); };
            const Matrix in = Matrix::at(at + 1), out = Matrix::at(at + 4), gate_up = Matrix::at(at + 8), down = Matrix::at(at + 11);

            for (int64_t m = 0; m < M; m++) normalise(x + m * D, floats(0), D, eps, m, scratch.data(), q);
            share(total, thread, n, first, last);
            multiply(q, M, in, first, last, D, [&](int64_t m, int64_t r, float value) { joined[m * total + r] = value; });
            #pragma omp barrier

            for (int64_t b = 0; b < B; b++) {
                const auto& list = look[b];
                const int64_t begin = list.size() * thread / n, end = list.size() * (thread + 1) / n, border = of_prompt[b];
                uint16_t* far = prompt->data + layer * prompt->layer + b * prompt->batch;
                uint16_t* near = memory->data + layer * memory->layer + b * memory->batch;
                const int64_t halves[2][2] = {{begin, std::min(end, border)}, {std::max(begin, border), end}};  // prompt, memory
                for (int64_t t = 0; t < T; t++) {  // who looks at a slot writes it before
                    const int64_t m = b * T + t, s = slot[m];
                    const auto [from, to_] = halves[!write_prompt];
                    if (from >= to_ || s < list[from] || s > list[to_ - 1]) continue;
                    const Memory* where = write_prompt ? prompt : memory;
                    uint16_t* to = write_prompt ? far : near;
                    const float* keys = joined.data() + m * total + heads * size;
                    for (int64_t h = 0; h < H; h++) {
                        uint16_t* place = to + (h * (write_prompt ? P : K) + s) * size;
                        rotate(keys + h * size, cos + (m * 2 + 1) * size, sin + (m * 2 + 1) * size, size, 1.0f, scratch.data());
                        for (int64_t i = 0; i < size; i++) {
                            place[i] = to_bf16(scratch[i]);
                            place[where->pair + i] = to_bf16(keys[(H + h) * size + i]);
                        }
                    }
                }
                for (int64_t h = 0; h < H; h++) {
                    for (int64_t t = 0; t < T; t++)
                        for (int64_t g = 0; g < G; g++)
                            for (int64_t way = 0; way < 2; way++) {  // as the prompt is seen, and as the memory is
                                const int64_t m = b * T + t, turn = (m * 2 + way) * size;
                                float* to = query.data() + (way * Q + t * G + g) * size;
                                rotate(joined.data() + m * total + (h * G + g) * size, cos + turn, sin + turn, size, scaling, to);
                                for (int64_t i = 0; i < size; i++) to[i] = from_bf16(to_bf16(to[i]));
                            }
                    for (int64_t i = 0; i < Q * part; i++) sight[i] = i % part ? 0.0f : -INFINITY;
                    for (int way = 0; way < 2; way++) {
                        const Memory* where = way ? memory : prompt;
                        const uint16_t* keys = way ? near + h * K * size : far + h * P * size;
                        for (int64_t start = halves[way][0]; start < halves[way][1]; start += BLOCK) {
                            const int64_t count = std::min<int64_t>(BLOCK, halves[way][1] - start);
                            look_at(query.data() + way * Q * size, Q, G, keys, keys + where->pair, list.data() + start,
                                    masks[b].data() + start, int64_t(list.size()), count, size, scores.data(), sight.data());
                        }
                    }
                    for (int64_t t = 0; t < T; t++)
                        std::memcpy(parts.data() + ((thread * M + b * T + t) * heads + h * G) * part, sight.data() + t * G * part,
                                    G * part * sizeof(float));
                }
            }
            #pragma omp barrier

            for (int64_t m = 0; m < M; m++) {
                for (int64_t h = 0; h < heads; h++) {
                    float top = -INFINITY, sum = 0, *y = scratch.data() + h * size;
                    for (int i = 0; i < n; i++) top = std::max(top, parts[((i * M + m) * heads + h) * part]);
                    std::fill(y, y + size, 0.0f);
                    for (int i = 0; i < n; i++) {
                        const float* from = parts.data() + ((i * M + m) * heads + h) * part;
                        if (from[0] == -INFINITY) continue;
                        const float share_of = exp_of(from[0] - top);
                        sum += share_of * from[1];
                        for (int64_t j = 0; j < size; j++) y[j] += share_of * from[2 + j];
                    }
                    for (int64_t j = 0; j < size; j++) y[j] /= sum;
                }
                quantise(scratch.data(), heads * size, m, q);
            }
            share(D, thread, n, first, last);
            multiply(q, M, out, first, last, heads * size, [&](int64_t m, int64_t r, float value) { x[m * D + r] += value; });
            #pragma omp barrier

            for (int64_t m = 0; m < M; m++) normalise(x + m * D, floats(7), D, eps, m, scratch.data(), q);
            share(F, thread, n, first, last);
            multiply(q, M, gate_up, first, last, D, [&](int64_t m, int64_t r, float value) { hidden[m * F + r] = value; });
            const Matrix up{gate_up.weight + F * D, gate_up.scale + F, gate_up.sums + F};
            multiply(q, M, up, first, last, D, [&](int64_t m, int64_t r, float value) { raised[m * F + r] = value; });
            #pragma omp barrier

            for (int64_t m = 0; m < M; m++) {
                const float *gate = hidden.data() + m * F, *value = raised.data() + m * F;
                for (int64_t i = 0; i < F; i++) scratch[i] = gate[i] / (1.0f + exp_of(-gate[i])) * value[i];
                quantise(scratch.data(), F, m, q);
            }
            share(D, thread, n, first, last);
            multiply(q, M, down, first, last, F, [&](int64_t m, int64_t r, float value) { x[m * D + r] += value; });
            #pragma omp barrier
        }
    }
}

// Residual MLPs whose norm is steered (AdaLN). plan: per block the (weight, scale, sums, bias) of what steers, of the MLP's first and of
// its second matrix. x [M, D] is changed in place; condition [M, D].
extern "C" void follow_steered(const int64_t* plan, int64_t blocks, float* x, const float* condition, int64_t M, int64_t D, float eps,
                               int64_t threads) {
    std::vector<float> steering(blocks * M * 3 * D), hidden(M * D);
    #pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num(), n = omp_get_num_threads();
        const int64_t wide = padded(D);
        std::vector<uint8_t> levels(M * wide);
        std::vector<float> scales(M), scratch(wide);
        Levels q{levels.data(), scales.data(), wide};
        auto silu = [&](const float* from, int64_t m) {
            for (int64_t i = 0; i < D; i++) scratch[i] = from[m * D + i] / (1.0f + exp_of(-from[m * D + i]));
            quantise(scratch.data(), D, m, q);
        };
        auto matrix = [&](int64_t block, int i) { return Matrix::at(plan + block * 12 + i * 4); };
        auto bias = [&](int64_t block, int i) { return reinterpret_cast<const float*>(plan[block * 12 + i * 4 + 3]); };
        int64_t first, last;

        for (int64_t m = 0; m < M; m++) silu(condition, m);
        share(3 * D, thread, n, first, last);
        for (int64_t block = 0; block < blocks; block++)
            multiply(q, M, matrix(block, 0), first, last, D, [&](int64_t m, int64_t r, float value) {
                steering[(block * M + m) * 3 * D + r] = value + bias(block, 0)[r];
            });
        share(D, thread, n, first, last);
        for (int64_t block = 0; block < blocks; block++) {
            #pragma omp barrier
            for (int64_t m = 0; m < M; m++) {
                const float *from = x + m * D, *shift = steering.data() + (block * M + m) * 3 * D, *scale = shift + D;
                float sum = 0, square = 0;
                for (int64_t i = 0; i < D; i++) sum += from[i];
                const float mean = sum / D;
                for (int64_t i = 0; i < D; i++) square += (from[i] - mean) * (from[i] - mean);
                const float inverse = 1.0f / std::sqrt(square / D + eps);
                for (int64_t i = 0; i < D; i++) scratch[i] = (from[i] - mean) * inverse * (1.0f + scale[i]) + shift[i];
                quantise(scratch.data(), D, m, q);
            }
            multiply(q, M, matrix(block, 1), first, last, D, [&](int64_t m, int64_t r, float value) {
                hidden[m * D + r] = value + bias(block, 1)[r];
            });
            #pragma omp barrier
            for (int64_t m = 0; m < M; m++) silu(hidden.data(), m);
            multiply(q, M, matrix(block, 2), first, last, D, [&](int64_t m, int64_t r, float value) {
                x[m * D + r] += steering[(block * M + m) * 3 * D + 2 * D + r] * (value + bias(block, 2)[r]);
            });
        }
    }
}

// ---------------------------------------------------------------- the vocoder: bfloat16 products, float32 between them

namespace {

constexpr int TILE = 32;       // rows and columns that are multiplied at once
constexpr float SLOPE = 0.1f;  // of the leaky rectifiers

float leaky(float x) { return x > 0 ? x : x * SLOPE; }

// memory that a thread which calls keeps from frame to frame
template <class T>
struct Buffer {
    T* data = nullptr; int64_t room = 0;
    T* of(int64_t n) {
        if (n > room) {
            std::free(data);
            room = (n + 63) / 64 * 64;
            data = static_cast<T*>(std::aligned_alloc(64, room * sizeof(T)));
            std::memset(data, 0, room * sizeof(T));
        }
        return data;
    }
    ~Buffer() { std::free(data); }
};

// y [32, 32] = sum over taps j of rows a + j * step, each of n values, times the tiles of w: [taps][n / 32][2][16][16][2].
// Rows beyond the first 16 are computed if `both`.
void product(const uint16_t* a, int64_t stride, int64_t step, int64_t taps, int64_t n, const uint16_t* w, bool both, float* y) {
#ifdef TILED
    if (TILES) {
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
    constexpr int GROUP = 8;
    for (int r = 0; r < (both ? TILE : TILE / 2); r += GROUP) {
        const uint16_t* tiles = w;
#ifdef __AVX512BF16__
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
#else
        float total[GROUP][TILE] = {};
        for (int64_t j = 0; j < taps; j++)
            for (int64_t c = 0; c < n; c += 32, tiles += 1024)
                for (int k = 0; k < 16; k++)
                    for (int i = 0; i < GROUP; i++) {
                        const uint16_t* pair = a + (r + i) * stride + j * step + c + 2 * k;
                        const float first = from_bf16(pair[0]), second = from_bf16(pair[1]);
                        for (int h = 0; h < 2; h++)
                            for (int m = 0; m < 16; m++) {
                                const uint16_t* weight = tiles + 512 * h + k * 32 + 2 * m;
                                total[i][16 * h + m] += first * from_bf16(weight[0]) + second * from_bf16(weight[1]);
                            }
                    }
        std::memcpy(y + r * TILE, total, sizeof(total));
#endif
    }
}

// Rows of `a` times the columns of block number `block`: emit(t, 32 values) for t = 0 .. rows - 1
template <class Emit>
void columns(const uint16_t* a, int64_t rows, int64_t n, int64_t taps, int64_t dilation, const uint16_t* w, int64_t block, Emit emit) {
    alignas(64) float y[TILE * TILE];
    for (int64_t t = 0; t < rows; t += TILE) {
        const int64_t count = std::min<int64_t>(TILE, rows - t);
        product(a + t * n, n, dilation * n, taps, n, w + block * TILE * taps * n, count > TILE / 2, y);
        for (int64_t i = 0; i < count; i++) emit(t + i, y + i * TILE);
    }
}

struct Reader {
    const int64_t* at;
    int64_t number() { return *at++; }
    const float* floats() { return reinterpret_cast<const float*>(*at++); }
    const uint16_t* tiles() { return reinterpret_cast<const uint16_t*>(*at++); }
};

int64_t up_to_tiles(int64_t n) { return (n + TILE - 1) / TILE * TILE; }

void layer_norm(const float* x, int64_t n, int64_t width, const float* weight, const float* bias, float* y) {
    float sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    const float mean = sum / n;
    for (int64_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    const float inverse = 1.0f / std::sqrt(square / n + 1e-5f);
    for (int64_t i = 0; i < width; i++) y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

// Transposed convolution, kernel = pieces * rate: x bfloat16 [T, n] -> y [(T + pieces - 1) * rate, C], whose last rows are kept in `tail`
void upsample(const uint16_t* x, int64_t T, int64_t n, int64_t C, int64_t rate, int64_t pieces, const uint16_t* w, const float* bias,
              float* tail, float* y, int thread, int threads) {
    const int64_t blocks = C / TILE, all = rate * blocks;
    for (int64_t i = all * thread / threads; i < all * (thread + 1) / threads; i++) {
        const int64_t r = i / blocks, column = i % blocks * TILE;
        for (int64_t t = 0; t < T + pieces - 1; t++)
            for (int64_t c = column; c < column + TILE; c++)
                y[(t * rate + r) * C + c] = (t < T ? bias[c] : 0.0f) + (t < pieces - 1 ? tail[(t * rate + r) * C + c] : 0.0f);
        for (int64_t p = 0; p < pieces; p++)
            columns(x, T, n, 1, 1, w, (p * rate + r) * blocks + i % blocks, [&](int64_t t, const float* values) {
                float* to = y + ((t + p) * rate + r) * C + column;
                #pragma omp simd
                for (int c = 0; c < TILE; c++) to[c] += values[c];
            });
        for (int64_t t = 0; t < pieces - 1; t++)
            std::memcpy(tail + (t * rate + r) * C + column, y + ((T + t) * rate + r) * C + column, TILE * sizeof(float));
    }
}

}  // namespace

// plan:
//   latents, width, and of the input its rate, pieces, tiles, bias;
//   the trunk's kernel, hidden width and number of blocks, of each the depthwise weights [kernel, width] and bias, the norm's weight and
//   bias, tiles and bias up, tiles and bias down; the last norm's weight and bias;
//   the number of stages, of each its width, rate, pieces, tiles, bias and number of residual blocks, of each the number of
//   convolutions, of each its kernel, dilation, whether its result is added to the block's input, tiles, bias.
// Widths are whole tiles; `inner` is the trunk's without what fills it up.
// x [B, T, latents] -> y [B, T * rates, last width]; memory [B, size] is changed in place, all zeros is the empty past.
extern "C" void generate(const int64_t* plan, int64_t inner, float* memory, int64_t size, const float* x, float* y, int64_t B, int64_t T,
                         int64_t threads) {
    static thread_local Buffer<uint16_t> input_, hidden_, joined_[2];
    static thread_local Buffer<float> trunk_, raised_, kept_;
    Buffer<uint16_t>*input = &input_, *hidden = &hidden_, *joined[2] = {&joined_[0], &joined_[1]};
    Buffer<float>*trunk = &trunk_, *raised = &raised_, *kept = &kept_;
    for (int64_t b = 0; b < B; b++) {
        Reader outer{plan};
        const int64_t latents = outer.number(), W = outer.number(), rate = outer.number(), pieces = outer.number(), rows = T * rate;
        uint16_t* a = input->of(up_to_tiles(rows + TILE) * std::max(latents, W));
        for (int64_t i = 0; i < T * latents; i++) a[i] = to_bf16(x[b * T * latents + i]);
        float* h = trunk->of((rows + (pieces - 1) * rate) * W);
        float *raise = nullptr, *keep = nullptr, *past = memory + b * size;
        uint16_t *up_to = nullptr, *join[2] = {nullptr, nullptr};
        #pragma omp parallel num_threads(threads)
        {
            const int thread = omp_get_thread_num(), n = omp_get_num_threads();
#ifdef TILED
            if (TILES) begin_tiles();
#endif
            Reader read{outer.at};
            float* from = past;
            const uint16_t* w = read.tiles();
            upsample(a, T, latents, W, rate, pieces, w, read.floats(), from, h, thread, n);
            from += (pieces - 1) * rate * W;

            const int64_t kernel = read.number(), F = read.number(), depth = read.number(), reach = kernel - 1;
            std::vector<float> seen((reach + rows) * W), row(W);
            Buffer<uint16_t> own_;
            uint16_t* own = own_.of(up_to_tiles(rows) * W);
            #pragma omp single
            up_to = hidden->of(up_to_tiles(rows) * F);
            for (int64_t layer = 0; layer < depth; layer++) {
                const float *depthwise = read.floats(), *bias = read.floats(), *norm = read.floats(), *shift = read.floats();
                std::memcpy(seen.data(), from, reach * W * sizeof(float));
                std::memcpy(seen.data() + reach * W, h, rows * W * sizeof(float));
                for (int64_t t = 0; t < rows; t++) {
                    std::memcpy(row.data(), bias, W * sizeof(float));
                    for (int64_t k = 0; k < kernel; k++)
                        for (int64_t c = 0; c < W; c++) row[c] += seen[(t + k) * W + c] * depthwise[k * W + c];
                    layer_norm(row.data(), inner, W, norm, shift, row.data());
                    for (int64_t c = 0; c < W; c++) own[t * W + c] = to_bf16(row[c]);
                }
                const uint16_t* up = read.tiles(); const float* up_bias = read.floats();
                for (int64_t block = F / TILE * thread / n; block < F / TILE * (thread + 1) / n; block++)
                    columns(own, rows, W, 1, 1, up, block, [&](int64_t t, const float* values) {
                        #pragma omp simd
                        for (int c = 0; c < TILE; c++) {
                            const float v = values[c] + up_bias[block * TILE + c], z = 1.59576912f * (v + 0.044715f * v * v * v);
                            up_to[t * F + block * TILE + c] = to_bf16(v / (1.0f + exp_of(-z)));  // GELU by its tanh
                        }
                    });
                #pragma omp barrier
                const uint16_t* down = read.tiles(); const float* down_bias = read.floats();
                for (int64_t block = W / TILE * thread / n; block < W / TILE * (thread + 1) / n; block++)
                    columns(up_to, rows, F, 1, 1, down, block, [&](int64_t t, const float* values) {
                        #pragma omp simd
                        for (int c = 0; c < TILE; c++) h[t * W + block * TILE + c] += values[c] + down_bias[block * TILE + c];
                    });
                if (thread == 0) std::memcpy(from, seen.data() + rows * W, reach * W * sizeof(float));
                from += reach * W;
                #pragma omp barrier
            }
            const float *norm = read.floats(), *shift = read.floats();
            for (int64_t t = rows * thread / n; t < rows * (thread + 1) / n; t++) {
                layer_norm(h + t * W, inner, W, norm, shift, row.data());
                for (int64_t c = 0; c < W; c++) a[t * W + c] = to_bf16(leaky(row[c]));
            }

            const int64_t stages = read.number();
            int64_t wide = W, length = rows;
            for (int64_t stage = 0; stage < stages; stage++) {
                const int64_t C = read.number(), up = read.number(), parts = read.number(), steps = length * up;
                const uint16_t* tiles = read.tiles(); const float* up_bias = read.floats();
                const int64_t blocks = read.number(), last_of_all = stage == stages - 1;
                #pragma omp barrier
                #pragma omp single
                {
                    int64_t farthest = 0;
                    Reader ahead = read;
                    for (int64_t i = 0; i < blocks; i++)
                        for (int64_t left = ahead.number(); left > 0; left--) {
                            farthest = std::max(farthest, (ahead.at[0] - 1) * ahead.at[1]);
                            ahead.at += 5;
                        }
                    h = trunk->of((steps + (parts - 1) * up) * C);
                    raise = raised->of(steps * C);
                    keep = kept->of(steps * C);
                    for (int i = 0; i < 2; i++) join[i] = joined[i]->of((farthest + up_to_tiles(steps)) * C);
                }
                upsample(a, length, wide, C, up, parts, tiles, up_bias, from, h, thread, n);
                from += (parts - 1) * up * C;
                #pragma omp barrier
                #pragma omp single
                a = input->of(up_to_tiles(steps + TILE) * C);
                const int64_t begin = steps * thread / n, end = steps * (thread + 1) / n;
                for (int64_t number = 0; number < blocks; number++) {
                    const int64_t convolutions = read.number();
                    const int64_t first_reach = (read.at[0] - 1) * read.at[1];
                    for (int64_t i = begin * C; i < end * C; i++) {
                        raise[i] = h[i];
                        join[0][first_reach * C + i] = to_bf16(leaky(h[i]));
                    }
                    if (thread == 0)
                        for (int64_t i = 0; i < first_reach * C; i++) join[0][i] = to_bf16(from[i]);
                    #pragma omp barrier
                    for (int64_t i = 0; i < convolutions; i++) {
                        const int64_t taps = read.number(), dilation = read.number(), added = read.number(), back = (taps - 1) * dilation;
                        const uint16_t* weight = read.tiles(); const float* bias = read.floats();
                        const bool last = i + 1 == convolutions;
                        const int64_t next = last ? 0 : (read.at[0] - 1) * read.at[1];
                        const uint16_t* in = join[i % 2];
                        uint16_t* out = join[(i + 1) % 2];
                        const int64_t first = C / TILE * thread / n, end_block = C / TILE * (thread + 1) / n;
                        for (int64_t block = first; block < end_block; block++)
                            columns(in, steps, C, taps, dilation, weight, block, [&](int64_t t, const float* values) {
                                const int64_t at = t * C + block * TILE;
                                #pragma omp simd
                                for (int c = 0; c < TILE; c++) {
                                    float v = values[c] + bias[block * TILE + c];
                                    if (added) raise[at + c] = v += raise[at + c];
                                    if (last) keep[at + c] = number ? keep[at + c] + v : v;
                                    else out[next * C + at + c] = to_bf16(leaky(v));
                                }
                            });
                        // this thread's columns of the past: that of the next convolution, and this one's for the next call
                        for (int64_t c = first * TILE; c < end_block * TILE; c++) {
                            for (int64_t t = 0; t < next; t++) out[t * C + c] = to_bf16(from[(back + t) * C + c]);
                            for (int64_t t = 0; t < back; t++) from[t * C + c] = from_bf16(in[(steps + t) * C + c]);
                        }
                        from += back * C;
                        #pragma omp barrier
                    }
                }
                for (int64_t i = begin * C; i < end * C; i++) {
                    const float v = keep[i] / blocks;
                    if (last_of_all) y[b * steps * C + i] = v;
                    else a[i] = to_bf16(leaky(v));
                }
                wide = C;
                length = steps;
            }
#ifdef TILED
            if (TILES) _tile_release();
#endif
        }
    }
}
"""
