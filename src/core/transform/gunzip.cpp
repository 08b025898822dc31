#include "core/transform/gunzip.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>
#include <new>

namespace sqs_ingest {

namespace {

class Inflater {
  public:
    Inflater() {
        constexpr int kLargestWindow = 15, kGzipOnly = 16;
        if (inflateInit2(&stream_, kLargestWindow + kGzipOnly) != Z_OK)
            throw std::bad_alloc(); // Z_VERSION_ERROR would be a wrong build
    }
    ~Inflater() { inflateEnd(&stream_); }
    Inflater(const Inflater&) = delete;
    Inflater& operator=(const Inflater&) = delete;

    z_stream* operator->() { return &stream_; }
    int inflate() { return ::inflate(&stream_, Z_NO_FLUSH); }
    int next_member() { return inflateReset(&stream_); }

  private:
    z_stream stream_{};
};

} // namespace

Result<std::string, GunzipError> gunzip(std::string_view bytes, std::size_t max_bytes) {
    if (bytes.empty() || bytes.size() > std::numeric_limits<uInt>::max())
        return GunzipError::not_gzip;
    Inflater inflater;
    inflater->next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data())); // zlib only reads there
    inflater->avail_in = static_cast<uInt>(bytes.size());

    std::string unpacked;
    std::array<char, 65536> piece;
    while (true) {
        inflater->next_out = reinterpret_cast<Bytef*>(piece.data());
        inflater->avail_out = static_cast<uInt>(piece.size());
        const int outcome = inflater.inflate();
        if (outcome == Z_MEM_ERROR)
            throw std::bad_alloc();
        if (outcome != Z_OK && outcome != Z_STREAM_END) // Z_BUF_ERROR: the input ends too soon
            return GunzipError::not_gzip;
        const auto n = piece.size() - inflater->avail_out;
        if (n > max_bytes - unpacked.size())
            return GunzipError::too_large;
        unpacked.append(piece.data(), n);
        if (outcome == Z_OK)
            continue;
        if (inflater->avail_in == 0)
            return unpacked;
        if (inflater.next_member() != Z_OK)
            return GunzipError::not_gzip;
    }
}

} // namespace sqs_ingest
