# For scripts that source it: programs as Python wheels, taken by hash.

# get_wheels FOLDER REQUIREMENTS: replaces FOLDER by what REQUIREMENTS lists; programs are in FOLDER/bin. If it fails, it
# has said why.
get_wheels() {
    if ! command -v python3 >/dev/null; then
        echo "python3 is missing" >&2
        return 1
    fi
    if ! python3 -m pip --version >/dev/null 2>&1; then
        echo "pip is missing (apt install python3-pip)" >&2
        return 1
    fi
    rm -rf "$1"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --root-user-action=ignore --target "$1" --requirement "$2"
}
