# What the parts of tools/install share: messages, and paths as the caller means them.

EXIT_CONFIG=78 # sysexits.h; as the service itself says "mend this first"

say() {
    printf '%s: %s\n' "$tool" "$*" >&2
}

# die SENTENCE: something of the machine failed.
die() {
    say "$*"
    exit 1
}

# refuse SENTENCE: the operator has to change something first.
refuse() {
    say "$*"
    exit "$EXIT_CONFIG"
}

absolute() {
    case $1 in
        /*) echo "$1" ;;
        *) echo "$caller/$1" ;;
    esac
}
