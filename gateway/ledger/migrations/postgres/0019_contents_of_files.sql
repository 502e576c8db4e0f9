-- Contents of files: parts of at most 1 MiB of an upload; of what a batch has written, one line of its input a part.
CREATE TABLE file_parts (
    file_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    contents BYTEA NOT NULL,
    PRIMARY KEY (file_id, number)
);
