// Sums of gated messages over neighbours, as in nn/messages.py for scalars: the products are never stored.
#include "kernels.h"

namespace {

template <class T> struct Call {
    int64_t n_slots, n_channels;
    const T *gates, *sent;
    const int64_t *neighbors;
    T *out;

    void operator()(int64_t first, int64_t last) const {
        for (int64_t i = first; i < last; i++) {
            T *__restrict o = out + i * n_channels;
            std::memset(o, 0, sizeof(T) * n_channels);
            for (int64_t j = 0; j < n_slots; j++) {
                const T *g = gates + (i * n_slots + j) * n_channels, *s = sent + neighbors[i * n_slots + j] * n_channels;
                for (int64_t c = 0; c < n_channels; c++) o[c] += g[c] * s[c];
            }
        }
    }
};

}  // namespace

#define EXPORT(T, NAME)                                                                                                    \
    extern "C" int message_sum_##NAME(int64_t n_threads, int64_t n_atoms, int64_t n_slots, int64_t n_channels, const T *gates, const T *sent, const int64_t *neighbors, T *out) noexcept { \
        return run(Call<T>{n_slots, n_channels, gates, sent, neighbors, out}, n_atoms, n_threads);                         \
    }
EXPORT(float, f32)
EXPORT(double, f64)
