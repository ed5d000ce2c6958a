#!/bin/sh
# Unpacks Debian's glewlwyd and the libraries that this machine lacks into a folder, installing
# nothing: no service, no configuration dialogue, no desktop. Usage: unpack_glewlwyd.sh FOLDER
set -eu
version=2.7.5
into=$1
found=$(apt-cache policy glewlwyd | sed -n 's/.*Candidate: //p')
case $found in
"$version"-*) ;;
*)
    apt-get -qq update
    found=$(apt-cache policy glewlwyd | sed -n 's/.*Candidate: //p')
    ;;
esac
case $found in
"$version"-*) ;;
*)
    echo "glewlwyd $version is wanted, apt-get has: ${found:-none}" >&2
    exit 1
    ;;
esac
rm -rf "$into"
mkdir -p "$into/packages"
libraries=$(apt-get install --simulate --no-install-recommends glewlwyd dbconfig-no-thanks |
    sed -n 's/^Inst \(lib[^ ]*\) .*/\1/p' | grep -v -e '^libjs-' -e '-perl$' || true)
# libfaketime moves the clock of a process: the tests of clocks that are wrong.
(cd "$into/packages" &&
    apt-get -qq -o APT::Sandbox::User=root download glewlwyd glewlwyd-common libfaketime $libraries)
for package in "$into"/packages/*.deb; do
    dpkg-deb --extract "$package" "$into"
done
rm -rf "$into/packages"
