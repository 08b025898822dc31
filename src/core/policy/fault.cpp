#include "core/policy/fault.h"

#include <algorithm>
#include <array>

namespace sqs_ingest {

bool is_pipeline_fault(std::string_view sqlstate) {
    static constexpr std::array<std::string_view, 7> kClasses = {"08", "25", "40", "53", "57", "58", "XX"};
    return sqlstate == "55P03" ||
           std::find(kClasses.begin(), kClasses.end(), sqlstate.substr(0, 2)) != kClasses.end();
}

} // namespace sqs_ingest
