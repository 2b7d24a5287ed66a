-- Who took a job up first; see control.Job.Holder.
ALTER TABLE jobs ADD COLUMN holder TEXT NOT NULL DEFAULT '';
