#include "net/profile_file.h"

#include "core/text.h"

#include <algorithm>

namespace sqs_ingest {
namespace {

constexpr std::string_view kBlank = " \t\r";

std::size_t indentation(std::string_view line) {
    return std::min(line.find_first_not_of(kBlank), line.size());
}

std::string_view trimmed(std::string_view text) {
    text.remove_prefix(indentation(text));
    return text.substr(0, text.find_last_not_of(kBlank) + 1);
}

std::string_view next_line(std::string_view& text) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    return line;
}

bool is_comment(std::string_view text) {
    return text.starts_with('#') || text.starts_with(';');
}

// A comment may follow a value after a blank; a '#' inside a word belongs to it.
std::string_view without_comment(std::string_view value) {
    for (std::size_t i = 1; i < value.size(); ++i)
        if (is_comment(value.substr(i)) && kBlank.find(value[i - 1]) != kBlank.npos)
            return trimmed(value.substr(0, i));
    return trimmed(value);
}

bool is_quoted(std::string_view text) {
    return text.size() > 1 && (text.front() == '"' || text.front() == '\'') && text.back() == text.front();
}

// "profile   x" and "profile x" are one name. AWS's CLI quotes one with a blank in it: "profile 'my dev'".
std::string section_name(std::string_view text) {
    std::string name;
    for (text = trimmed(text); !text.empty(); text = trimmed(text)) {
        if (!name.empty() && is_quoted(text))
            return name.append(" ").append(text.substr(1, text.size() - 2));
        const auto word = text.substr(0, text.find_first_of(kBlank));
        name.append(name.empty() ? "" : " ").append(word);
        text.remove_prefix(word.size());
    }
    return name;
}

class ProfileFileReader {
  public:
    void read_line(std::string_view line) {
        const auto text = trimmed(line);
        if (text.empty() || is_comment(text))
            return;
        if (text.starts_with('['))
            open_section(text);
        else if (section_ != nullptr && continues_last_key(line))
            read_nested_key(text);
        else if (section_ != nullptr)
            read_key(text, indentation(line));
    }

    ProfileFile take() { return std::move(file_); }

  private:
    // What follows a heading that nobody understands must not count for the section before it.
    void open_section(std::string_view heading) {
        const auto end = heading.find(']');
        section_ = end == heading.npos ? nullptr : &file_[section_name(heading.substr(1, end - 1))];
        has_key_ = false;
    }

    // A line indented deeper than the last key is part of that key: a nested block, or a value's next line.
    // Keys that are all indented alike are keys.
    bool continues_last_key(std::string_view line) const {
        return has_key_ && indentation(line) > key_indentation_;
    }

    void read_key(std::string_view text, std::size_t indentation) {
        const auto equals = text.find('=');
        if (equals == text.npos)
            return;
        last_key_ = ascii_lower(trimmed(text.substr(0, equals)));
        (*section_)[last_key_] = without_comment(text.substr(equals + 1));
        has_key_ = true;
        key_indentation_ = indentation;
    }

    // Only a key without a value begins a block; a value's further lines are nothing that is read here.
    void read_nested_key(std::string_view text) {
        const auto equals = text.find('=');
        if (equals != text.npos && (*section_)[last_key_].empty())
            (*section_)[last_key_ + "." + ascii_lower(trimmed(text.substr(0, equals)))] =
                without_comment(text.substr(equals + 1));
    }

    ProfileFile file_;
    Profile* section_ = nullptr;
    bool has_key_ = false; // in this section
    std::string last_key_;
    std::size_t key_indentation_ = 0;
};

} // namespace

ProfileFile parse_profile_file(std::string_view text) {
    constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF"; // some Windows editors
    if (text.starts_with(kByteOrderMark))
        text.remove_prefix(kByteOrderMark.size());
    ProfileFileReader reader;
    while (!text.empty())
        reader.read_line(next_line(text));
    return reader.take();
}

std::string value_of(const Profile* profile, const std::string& key) {
    if (profile == nullptr)
        return "";
    const auto found = profile->find(key);
    return found == profile->end() ? "" : found->second;
}

} // namespace sqs_ingest
