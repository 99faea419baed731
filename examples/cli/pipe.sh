#!/bin/sh
# A server and clients in a shell script: an echo over TLS, lines through it, and how many messages it takes a second.
#   sh examples/cli/pipe.sh
set -eu

tornado_ws() {
    "${PYTHON:-python3}" -m tornado_ws "$@"
}

folder=$(mktemp -d)
"${PYTHON:-python3}" -m tornado_ws serve --port 0 --tls-self-signed --save-ca "$folder/ca.pem" \
    >"$folder/addresses" 2>"$folder/log" &
server=$!
trap 'kill "$server"; wait "$server"; rm -r "$folder"' EXIT

# The address is there when the server listens.
until [ -s "$folder/addresses" ]; do
    kill -0 "$server"
    sleep 0.1
done
url=$(sed -n 's/^echo: //p' "$folder/addresses")

printf '%s\n' '{"id": 1, "tags": []}' 'no JSON' | tornado_ws connect "$url" --cafile "$folder/ca.pem" --json
tornado_ws bench "$url" --cafile "$folder/ca.pem" --messages 100 --json >"$folder/figures"
echo "measured: $(sed 's/.*"messages": \([0-9]*\).*/\1/' "$folder/figures") round trips"

# The status tells how a connection has ended: here there is none, since nothing trusts the certificate.
status=0
tornado_ws connect "$url" </dev/null 2>"$folder/error" || status=$?
echo "without the certificate: status $status"
