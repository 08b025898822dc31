// The keyring behind the reference values of the tests: key id 1, master key bytes 00, 01, … 1f.
#pragma once

#include "core/transform/keyring.h"

namespace sqs_ingest::test {

inline constexpr char kReferenceLine[] =
    "1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
inline constexpr char kSecondLine[] = "2 ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100\n";

inline Keyring keyring_of(const std::string& text) {
    return Keyring::parse(text).value();
}
inline Keyring reference_keyring() {
    return keyring_of(kReferenceLine);
}

} // namespace sqs_ingest::test
