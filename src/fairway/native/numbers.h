// The types of numbers that training's operations take, and what each is computed in.

#include "products.h"

namespace {

struct bfloat16 {
    uint16_t bits;
};

inline float get(float x) { return x; }

inline float get(bfloat16 x) {
    uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline double get(double x) { return x; }

inline void put(float &to, float x) { to = x; }

inline void put(double &to, double x) { to = x; }

inline void put(bfloat16 &to, float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    to.bits = static_cast<uint16_t>(x != x ? 0x7FC0 : rounded);
}

inline float exponential(float x) {  // two units in the last place; not-a-number stays
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.0f ? -87.0f : x;
    float n = std::nearbyint(x * 1.44269504f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    return p * power;
}

// In which to compute what is given in T, and what belongs to all rows.
template <typename T>
using W = std::conditional_t<std::is_same_v<T, double>, double, float>;

}  // namespace
