"""C++ of transformer layers and of steered MLPs, which `kernels_build_michiai.py` compiles after attention."""

LAYERS = r"""
// plan: per layer the addresses of norm, (weight, scale, sums) of queries with keys and values, of the output, norm, and those of
// gate with up, and of down; after all the last norm's. x [B T, D] is changed in place, as is one of prompt and memory at `slot`.
extern "C" void follow_layers(const int64_t* plan, const Shape* shape, float* x, const Memory* prompt, const Memory* memory,
                              int64_t write_prompt, const int64_t* slot, const uint8_t* seen, const float* cos, const float* sin,
                              int64_t threads) {
    const int64_t S = shape->S, M = shape->B * shape->T, D = shape->D, F = shape->F;
    const float eps = shape->eps;
    const Sight sight(*shape, seen);
    Attention attention(*shape, sight, prompt, memory, write_prompt, slot, cos, sin, threads);
    const int64_t total = attention.total, width = attention.heads * shape->size, wide = up_to(64, std::max({D, F, width}));
    float* joined = attention.joined.data();
    std::vector<float> hidden(M * F), raised(M * F);

    #pragma omp parallel num_threads(threads)
    {
        const int thread = omp_get_thread_num(), n = omp_get_num_threads();
        std::vector<Level> levels(M * wide);
        std::vector<float> scales(M), scratch(wide);
        Looker looker(attention, thread, n);
        int64_t first, last;
        Levels q{levels.data(), scales.data(), wide};
        for (int64_t layer = 0; layer < S; layer++) {
            const int64_t* at = plan + layer * 14;
            auto floats = [&](int i) { return reinterpret_cast<const float*>(at[i]); };
            const Matrix in = Matrix::at(at + 1), out = Matrix::at(at + 4), gate_up = Matrix::at(at + 8), down = Matrix::at(at + 11);

            for (int64_t m = 0; m < M; m++) {
                normalise(x + m * D, floats(0), D, eps, scratch.data());
                quantise(scratch.data(), D, m, q);
            }
            share(total, thread, n, first, last);
            multiply(q, M, in, first, last, D, [&](int64_t m, int64_t r, float value) { joined[m * total + r] = value; });
            #pragma omp barrier

            for (int64_t b = 0; b < shape->B; b++) looker.look(layer, b);
            #pragma omp barrier

            for (int64_t m = 0; m < M; m++) {
                looker.put_together(m, scratch.data());
                quantise(scratch.data(), width, m, q);
            }
            share(D, thread, n, first, last);
            multiply(q, M, out, first, last, width, [&](int64_t m, int64_t r, float value) { x[m * D + r] += value; });
            #pragma omp barrier

            for (int64_t m = 0; m < M; m++) {
                normalise(x + m * D, floats(7), D, eps, scratch.data());
                quantise(scratch.data(), D, m, q);
            }
            share(F, thread, n, first, last);
            multiply(q, M, gate_up, first, last, D, [&](int64_t m, int64_t r, float value) { hidden[m * F + r] = value; });
            const Matrix up{gate_up.weight + F * D, gate_up.scale + F, gate_up.sums + F};
            multiply(q, M, up, first, last, D, [&](int64_t m, int64_t r, float value) { raised[m * F + r] = value; });
            #pragma omp barrier

            for (int64_t m = 0; m < M; m++) {
                const float *gate = hidden.data() + m * F, *value = raised.data() + m * F;
                for (int64_t i = 0; i < F; i++) scratch[i] = gate[i] * sigmoid(gate[i]) * value[i];
                quantise(scratch.data(), F, m, q);
            }
            share(D, thread, n, first, last);
            multiply(q, M, down, first, last, F, [&](int64_t m, int64_t r, float value) { x[m * D + r] += value; });
            #pragma omp barrier
        }
        const auto weight = reinterpret_cast<const float*>(plan[S * 14]);
        #pragma omp for
        for (int64_t m = 0; m < M; m++) normalise(x + m * D, weight, D, eps, x + m * D);
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
        const int64_t wide = up_to(64, D);
        std::vector<Level> levels(M * wide);
        std::vector<float> scales(M), scratch(wide);
        Levels q{levels.data(), scales.data(), wide};
        auto silu = [&](const float* from, int64_t m) {
            for (int64_t i = 0; i < D; i++) scratch[i] = from[m * D + i] * sigmoid(from[m * D + i]);
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
                const float *shift = steering.data() + (block * M + m) * 3 * D, *scale = shift + D;
                standardise(x + m * D, D, eps, scratch.data());
                for (int64_t i = 0; i < D; i++) scratch[i] = scratch[i] * (1.0f + scale[i]) + shift[i];
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
"""
