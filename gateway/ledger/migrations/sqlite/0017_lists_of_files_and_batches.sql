-- Lists of a project's files and batches, page by page.
CREATE INDEX files_by_project ON files (project_id, created_at, id);
CREATE INDEX batches_by_project ON batches (project_id, created_at, id);
