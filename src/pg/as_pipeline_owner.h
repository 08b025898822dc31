// Acting as a pipeline's owner, for somebody else's session that tries the target out.
#pragma once

#include "pg/pg.h"

namespace sqs_ingest::pg {

// The target as the pipeline's owner finds it. Statement triggers fire for no rows too. What they do is
// rolled back by the caller, but they must not become somebody else meanwhile, such as the superuser who
// called and ran SET ROLE.
class AsPipelineOwner {
  public:
    explicit AsPipelineOwner(Oid owner) {
        GetUserIdAndSecContext(&user_, &security_context_);
        SetUserIdAndSecContext(owner, security_context_ | SECURITY_LOCAL_USERID_CHANGE |
                                          SECURITY_RESTRICTED_OPERATION);
    }
    ~AsPipelineOwner() { SetUserIdAndSecContext(user_, security_context_); }
    AsPipelineOwner(const AsPipelineOwner&) = delete;
    AsPipelineOwner& operator=(const AsPipelineOwner&) = delete;

  private:
    Oid user_;
    int security_context_;
};

} // namespace sqs_ingest::pg
