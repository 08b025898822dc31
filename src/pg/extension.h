// Where the extension is installed in this database, and acting as its owner for its own tables.
#pragma once

#include "pg/guard.h"

namespace sqs_ingest::pg {

struct Extension {
    Oid oid;
    Oid owner;
    std::string schema; // quoted where needed, to be put into SQL text

    std::string table(const char* name) const { return schema + "." + name; }
};

// Empty: CREATE EXTENSION has not run here. Needs a transaction.
std::optional<Extension> find_extension();
Extension require_extension(); // throws PgError

// The same, and DROP EXTENSION waits until this transaction ends: for who takes more locks.
Extension lock_extension();

// Acts as the extension's owner, with a search_path of ours, while it lives: for statements on the
// extension's own tables. A role's own search_path and operators must never be looked up with the owner's
// rights.
class AsExtensionOwner {
  public:
    explicit AsExtensionOwner(const Extension& extension);
    ~AsExtensionOwner();
    AsExtensionOwner(const AsExtensionOwner&) = delete;
    AsExtensionOwner& operator=(const AsExtensionOwner&) = delete;

    Oid user() const { return user_; } // who it was before

  private:
    Oid user_;
    int security_context_;
    int guc_level_;
};

// A role's name for messages; its number when it is gone.
std::string role_name(Oid role);

} // namespace sqs_ingest::pg
