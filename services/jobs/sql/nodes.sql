-- name: living_vcs
-- Of two at one address the later: the other is an earlier life of its process that had no time to say so.
SELECT DISTINCT ON (address) name, address FROM nodes
WHERE kind = 'vcs' AND address IS NOT NULL AND seen_at > now() - :alive::interval
ORDER BY address, started_at DESC;
