#!/bin/sh
# For the image `postgres`, at its first start: Wharf owns its database and is no superuser, as docs/deployment.md says.
# The superuser loses its password, so nobody outside the container is one.
set -eu
psql --set ON_ERROR_STOP=1 --no-psqlrc --username postgres --dbname postgres <<'SQL'
\getenv password POSTGRES_PASSWORD
CREATE ROLE wharf LOGIN PASSWORD :'password' NOSUPERUSER NOCREATEDB NOCREATEROLE;
CREATE DATABASE wharf OWNER wharf ENCODING 'UTF8' TEMPLATE template0;
ALTER ROLE postgres PASSWORD NULL;
SQL
