#include "core/transform/keyring.h"

#include "core/hex_digit.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace sqs_ingest {

namespace {

constexpr std::size_t kMasterBytes = 32;
constexpr std::size_t kSubkeyBytes = 32;
constexpr std::size_t kSivKeyBytes = 64;
constexpr std::string_view kSpace = " \t\r";

std::string_view take_line(std::string_view& text) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    return line;
}

std::string_view without_comment(std::string_view line) {
    line = line.substr(0, line.find('#'));
    line.remove_prefix(std::min(line.find_first_not_of(kSpace), line.size()));
    return line.substr(0, line.find_last_not_of(kSpace) + 1);
}

std::string at_line(int number, const char* what) {
    return "line " + std::to_string(number) + ": " + what;
}

std::optional<std::uint32_t> parse_id(std::string_view text) {
    std::uint32_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error != std::errc() || end != text.data() + text.size() || id == 0)
        return std::nullopt;
    return id;
}

std::optional<SecretBytes> parse_master(std::string_view text) {
    if (text.size() != 2 * kMasterBytes)
        return std::nullopt;
    SecretBytes master(kMasterBytes);
    for (std::size_t i = 0; i < kMasterBytes; ++i) {
        const auto high = hex_digit(text[2 * i]);
        const auto low = hex_digit(text[2 * i + 1]);
        if (!high || !low)
            return std::nullopt;
        master.writable()[i] = static_cast<std::uint8_t>(*high << 4 | *low);
    }
    return master;
}

SecretBytes subkey(const SecretBytes& master, std::string_view info, std::size_t size = kSubkeyBytes) {
    SecretBytes key(size);
    hkdf_sha256(master.bytes(), info, key.writable());
    return key;
}

// `line`: without its comment, not empty. No error quotes the line: what is out of place in it may be a key.
Result<MaskKey, std::string> parse_key(std::string_view line, int number) {
    const auto id_end = std::min(line.find_first_of(kSpace), line.size());
    const auto id = parse_id(line.substr(0, id_end));
    if (!id)
        return at_line(number, "expected a key id from 1 to 4294967295, a space and 64 hexadecimal digits");
    const auto master = parse_master(without_comment(line.substr(id_end)));
    if (!master)
        return at_line(number, "expected 64 hexadecimal digits after the key id");
    const auto fingerprint_key = subkey(*master, "sqs_ingest/v1/fingerprint");
    return MaskKey{*id, subkey(*master, "sqs_ingest/v1/hmac"), subkey(*master, kSivInfo, kSivKeyBytes),
                   subkey(*master, "sqs_ingest/v1/seal"),
                   hex(hmac_sha256(fingerprint_key.bytes(), "sqs_ingest"))};
}

} // namespace

SecretBytes::SecretBytes(std::size_t size)
    : data_(static_cast<std::uint8_t*>(OPENSSL_secure_malloc(size))), size_(size) {
    if (data_ == nullptr && size > 0)
        throw CryptoError("OpenSSL's secure heap is exhausted");
}

SecretBytes::SecretBytes(SecretBytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

SecretBytes::~SecretBytes() {
    OPENSSL_secure_clear_free(data_, size_);
}

Result<Keyring, std::string> Keyring::parse(std::string_view text) {
    Keyring ring;
    for (int number = 1; !text.empty(); ++number) {
        const auto line = without_comment(take_line(text));
        if (line.empty())
            continue;
        auto key = parse_key(line, number);
        if (!key)
            return std::move(key).error();
        if (ring.find(key.value().id) != nullptr)
            return at_line(number, "this key id is on an earlier line too");
        ring.keys_.push_back(std::move(key).value());
    }
    if (ring.keys_.empty())
        return std::string("there is no key in it");
    std::sort(ring.keys_.begin(), ring.keys_.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
    return ring;
}

const MaskKey* Keyring::find(std::uint32_t id) const {
    const auto found =
        std::find_if(keys_.begin(), keys_.end(), [id](const auto& key) { return key.id == id; });
    return found == keys_.end() ? nullptr : &*found;
}

} // namespace sqs_ingest
