"""C++ of the vocoder, which `kernels_michiai.py` compiles after the convolutions."""

VOCODER = r"""
namespace {

constexpr float SLOPE = 0.1f;  // of the leaky rectifiers

float leaky(float x) { return x > 0 ? x : x * SLOPE; }

// memory that a thread which calls keeps from frame to frame
template <class T>
struct Buffer {
    T* data = nullptr; int64_t room = 0;
    T* of(int64_t n) {
        if (n > room) {
            std::free(data);
            room = up_to(64, n);
            data = static_cast<T*>(std::aligned_alloc(64, room * sizeof(T)));
            std::memset(data, 0, room * sizeof(T));
        }
        return data;
    }
    ~Buffer() { std::free(data); }
};

struct Reader {
    const int64_t* at;
    int64_t number() { return *at++; }
    const float* floats() { return reinterpret_cast<const float*>(*at++); }
    const uint16_t* tiles() { return reinterpret_cast<const uint16_t*>(*at++); }
};

void layer_norm(const float* x, int64_t n, int64_t width, const float* weight, const float* bias, float* y) {
    standardise(x, n, 1e-5f, y);
    for (int64_t i = 0; i < width; i++) y[i] = (i < n ? y[i] : 0.0f) * weight[i] + bias[i];
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
    static thread_local Buffer<float> trunk_, raised_, kept_, spread_;
    Buffer<uint16_t>*input = &input_, *hidden = &hidden_, *joined[2] = {&joined_[0], &joined_[1]};
    Buffer<float>*trunk = &trunk_, *raised = &raised_, *kept = &kept_, *spread = &spread_;
    for (int64_t b = 0; b < B; b++) {
        Reader outer{plan};
        const int64_t latents = outer.number(), W = outer.number(), rate = outer.number(), pieces = outer.number(), rows = T * rate;
        uint16_t* a = input->of(up_to(TILE, rows + TILE) * std::max(latents, W));
        for (int64_t i = 0; i < T * latents; i++) a[i] = to_bf16(x[b * T * latents + i]);
        float* h = trunk->of((rows + (pieces - 1) * rate) * W);
        float *raise = nullptr, *keep = nullptr, *at_points = nullptr, *past = memory + b * size;
        uint16_t *raised_up = nullptr, *join[2] = {nullptr, nullptr};
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
            uint16_t* own = own_.of(up_to(TILE, rows) * W);
            #pragma omp single
            raised_up = hidden->of(up_to(TILE, rows) * F);
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
                            raised_up[t * F + block * TILE + c] = to_bf16(v * sigmoid(z));  // GELU by its tanh
                        }
                    });
                #pragma omp barrier
                const uint16_t* down = read.tiles(); const float* down_bias = read.floats();
                for (int64_t block = W / TILE * thread / n; block < W / TILE * (thread + 1) / n; block++)
                    columns(raised_up, rows, F, 1, 1, down, block, [&](int64_t t, const float* values) {
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
                    int64_t farthest = 0, most = 0;
                    Reader ahead = read;
                    for (int64_t i = 0; i < blocks; i++)
                        for (int64_t left = ahead.number(); left > 0; left--) {
                            farthest = std::max(farthest, (ahead.at[0] - 1) * ahead.at[1]);
                            most = std::max(most, Rows(steps, ahead.at[0], ahead.at[1]).size(C));
                            ahead.at += 5;
                        }
                    h = trunk->of((steps + (parts - 1) * up) * C);
                    raise = raised->of(steps * C);
                    keep = kept->of(steps * C);
                    if (FEWER) at_points = spread->of(most);
                    for (int i = 0; i < 2; i++) join[i] = joined[i]->of((farthest + up_to(TILE, steps)) * C);
                }
                upsample(a, length, wide, C, up, parts, tiles, up_bias, from, h, thread, n);
                from += (parts - 1) * up * C;
                #pragma omp barrier
                #pragma omp single
                a = input->of(up_to(TILE, steps + TILE) * C);
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
                        const Rows points(steps, taps, dilation);
                        if (FEWER) {
                            to_points(in, back + steps, C, dilation, points, at_points, thread, n);
                            #pragma omp barrier
                        }
                        for (int64_t block = first; block < end_block; block++) {
                            const auto emit = [&](int64_t t, const float* values) {
                                const int64_t at = t * C + block * TILE;
                                #pragma omp simd
                                for (int c = 0; c < TILE; c++) {
                                    float v = values[c] + bias[block * TILE + c];
                                    if (added) raise[at + c] = v += raise[at + c];
                                    if (last) keep[at + c] = number ? keep[at + c] + v : v;
                                    else out[next * C + at + c] = to_bf16(leaky(v));
                                }
                            };
                            if (FEWER) from_points(at_points, points, steps, C, taps, dilation, weight, block, emit);
                            else columns(in, steps, C, taps, dilation, weight, block, emit);
                        }
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
